"""Neural ODE image classifiers by knowledge distillation, with robustness numbers that can be believed.

The names below are the public ones; everything else is reached through its sub-package and may change.
"""

import os

# Before torch is loaded: threads that wait by spinning made training ten times slower as soon as anything else ran on the
# machine, and threads that sleep cost next to nothing. A setting of the user's is left alone.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from nodestill.attacks import LinfBudget, fgsm, mi_fgsm, pgd, robustness_sweep
from nodestill.data import load_image_set
from nodestill.models import NeuralODEClassifier, resnet
from nodestill.ode import GradientMode, Solution, Solver, StepControl, solve
from nodestill.training import distillation_loss, evaluate, train

__version__ = "0.1.0"

__all__ = [
    "GradientMode",
    "LinfBudget",
    "NeuralODEClassifier",
    "Solution",
    "Solver",
    "StepControl",
    "distillation_loss",
    "evaluate",
    "fgsm",
    "load_image_set",
    "mi_fgsm",
    "pgd",
    "resnet",
    "robustness_sweep",
    "solve",
    "train",
]
