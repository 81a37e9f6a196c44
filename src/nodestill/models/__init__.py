"""Networks from images in [0, 1] to logits: the residual teachers and the Neural ODE student, and what they cost."""

from nodestill.models.cost import ForwardMacs, forward_macs, macs, parameter_count
from nodestill.models.dynamics import Activation, ConvDynamics, Norm
from nodestill.models.head import Pooling, classification_head
from nodestill.models.neural_ode import NeuralODEClassifier, Prediction, node_classifier
from nodestill.models.normalize import Normalize
from nodestill.models.resnet import ResNet, resnet
from nodestill.models.stem import Stem, stem, transition
from nodestill.models.twin import DiscreteTwin, discrete_twin
from nodestill.models.whitening import Whitening

__all__ = [
    "Activation",
    "ConvDynamics",
    "DiscreteTwin",
    "ForwardMacs",
    "NeuralODEClassifier",
    "Norm",
    "Normalize",
    "Pooling",
    "Prediction",
    "ResNet",
    "Stem",
    "Whitening",
    "classification_head",
    "discrete_twin",
    "forward_macs",
    "macs",
    "node_classifier",
    "parameter_count",
    "resnet",
    "stem",
    "transition",
]
