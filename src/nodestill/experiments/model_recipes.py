"""What is asked of one model, as frozen values: a teacher, a student, and how the one teaches the other."""

from dataclasses import dataclass, field, replace
from enum import Enum

from nodestill.attacks import LinfBudget
from nodestill.experiments.required import require, require_perturbing
from nodestill.models import Activation, Norm, Pooling, Stem
from nodestill.ode import Method, Solver
from nodestill.training import Training


class DistillationObjective(Enum):
    """What is minimised with a teacher; `nodestill.training` has them in objectives, matching and robust_objectives."""

    HINTON = "hinton"  # the teacher's logits and the labels, both at clean images
    MEAN = "hinton-mean"  # the same with the KL averaged over classes too, PyTorch's `mean`: a mistake, and a control
    LOGITS = "logits"  # squared differences of logits in place of the KL
    ARD = "ard"  # the teacher's logits at perturbed images, the labels at clean ones
    RSLAD = "rslad"  # the teacher's logits at perturbed and at clean images, no labels


_PERTURBING = (DistillationObjective.ARD, DistillationObjective.RSLAD)
USUAL_ATTACK = LinfBudget(8, step_255=2, steps=10)  # of the authors of ARD and RSLAD


@dataclass(frozen=True)
class Distillation:
    """How a teacher's logits enter the loss.

    Args:
        temperature: T > 0 of the softmaxes; the paper has 3, 10 and 20, ARD 30, RSLAD 1.
        kd_weight: Weight of the teacher's logits, in [0, 1]: against the labels for hinton and logits; at perturbed images,
            against the labels at clean ones for ard, against the teacher's logits at clean ones for rslad. The paper has 0.9,
            ARD 1, RSLAD 5/6.
        objective: What is minimised.
        once: Whether the teacher is asked once for each image as stored, instead of on every view that the student sees; where
            the student's views are flipped, the mean of what it says of the image and of its mirror image.
        adversarial: How the student's images are perturbed, in ard and rslad.

    Raises:
        RecipeError: If a value is out of its range, or images are to be perturbed that the objective does not perturb.
    """

    temperature: float
    kd_weight: float
    objective: DistillationObjective = field(default=DistillationObjective.HINTON, metadata={"later": True})
    once: bool = field(default=False, metadata={"later": True})
    adversarial: LinfBudget = field(default=USUAL_ATTACK, metadata={"later": True})

    def __post_init__(self) -> None:
        require(self.temperature > 0, "temperature", self.temperature, "be positive; the paper uses 3, 10 and 20")
        require(0 <= self.kd_weight <= 1, "kd_weight", self.kd_weight, "lie in [0, 1]; the paper uses 0.9")
        require_perturbing("distillation.adversarial", self.adversarial)
        perturbs = self.objective in _PERTURBING
        expected = "be left out where nothing is perturbed: choose ard or rslad"
        require(perturbs or self.adversarial == USUAL_ATTACK, "distillation.adversarial", self.adversarial, expected)


@dataclass(frozen=True)
class TeacherRecipe:
    """A CIFAR residual network of He et al.

    Args:
        depth: 6 n + 2: 20, 32, 44, 56, 110.
        training: How it is trained, on labels.
        width: Channels of the first stage; 16 is the published network.
        adversarial: How its images are perturbed, if it is trained on perturbed images alone; None if it is not.
    """

    depth: int
    training: Training
    width: int = 16
    adversarial: LinfBudget | None = field(default=None, metadata={"later": True})

    def __post_init__(self) -> None:
        require(self.depth >= 8 and self.depth % 6 == 2, "teacher.depth", self.depth, "be 6 n + 2; the paper uses 20 to 110")
        even = self.width >= 2 and self.width % 2 == 0
        require(even, "teacher.width", self.width, "be even and at least 2; 16 is the published network")
        if self.adversarial is not None:
            require_perturbing("teacher.adversarial", self.adversarial)
            mistaken = self.training.double_softmax
            require(not mistaken, "teacher.training.double_softmax", mistaken, "be false on perturbed images")


@dataclass(frozen=True)
class StudentRecipe:
    """A Neural ODE classifier NODE(t1): stem, solve of y' = f(t, y) from 0 to t1, pooled linear head.

    Args:
        stem: How the image becomes the initial state, and what stands between equations and behind the last.
        channels: Channels of the state.
        t1: Time horizon, >= 0; 0 leaves the stem alone.
        solver: How the ODE is solved, in training and in evaluation.
        training: How the student is trained.
        distillation: How the teacher teaches; None to train on labels alone.
        layers: Convolutions in f; the paper has 4.
        norm: Normalisation inside f.
        activation: Between the convolutions of f.
        zero_last: Whether f starts as f = 0.
        further: Channels of further equations, each on pictures of half the size, behind a transition.
        pooling: How the head makes one number of each channel.
        twin: Whether residual blocks, as many as the solver evaluates f, take the place of each solve: the discrete twin.
        blocks: How many blocks a twin has instead; for a solver whose evaluations only a trained model tells.
        f_scale: What f is multiplied by, > 0. NODE(1) with t1 for it is the same function as NODE(t1).
        frozen: Whether f keeps its initial weights.
        pre_activation: Whether f begins with an activation.
        coarse_epochs: Epochs, from the first, in which training takes half of the solver's steps: quick, while the rate is
            high. What is measured after them is measured with all steps.
    """

    stem: Stem
    channels: int
    t1: float
    solver: Solver
    training: Training
    distillation: Distillation | None
    layers: int = 4
    norm: Norm = Norm.GROUP
    activation: Activation = Activation.RELU
    zero_last: bool = False
    further: tuple[int, ...] = field(default=(), metadata={"later": True})
    pooling: Pooling = field(default=Pooling.AVERAGE, metadata={"later": True})
    twin: bool = field(default=False, metadata={"later": True})
    blocks: int | None = field(default=None, metadata={"later": True})
    f_scale: float = field(default=1.0, metadata={"later": True})
    frozen: bool = field(default=False, metadata={"later": True})
    pre_activation: bool = field(default=False, metadata={"later": True})
    coarse_epochs: int = field(default=0, metadata={"later": True})

    def __post_init__(self) -> None:
        self._require_an_equation()
        self._require_a_training()
        self._require_a_twin()

    def _require_an_equation(self) -> None:
        require(0 < self.f_scale < float("inf"), "student.f_scale", self.f_scale, "be positive and finite; 1 is usual")
        require(all(c >= 1 for c in self.further), "student.further", self.further, "hold channels of at least 1")
        require(self.channels >= 1, "student.channels", self.channels, "be at least 1; the paper uses 512")
        require(0 <= self.t1 < float("inf"), "student.t1", self.t1, "be finite and >= 0; the paper uses 1, 100 and 500")
        require(self.layers >= 1, "student.layers", self.layers, "be at least 1; the paper uses 4")

    def _require_a_training(self) -> None:
        halves = self.solver.steps is not None and self.solver.steps % 2 == 0
        fits = self.coarse_epochs == 0 or (halves and 0 < self.coarse_epochs < self.training.epochs)
        expected = "be 0, or below the epochs, of a solver of an even number of fixed steps"
        require(fits, "student.coarse_epochs", self.coarse_epochs, expected)
        small, asked_once = self.training.sides, self.distillation is None or self.distillation.once
        expected = "be none unless distillation.once is true: a teacher that is asked on each view knows no small images"
        require(not small or asked_once, "student.training.sides", small, expected)
        perturbed = self.distillation is not None and self.distillation.objective in _PERTURBING
        mistaken = self.training.double_softmax
        require(not (mistaken and perturbed), "student.training.double_softmax", mistaken, "be false in ard and rslad")
        compiled = self.training.compiled
        require(self._is_fixed or not compiled, "student.training.compiled", compiled, "be false unless steps are fixed")

    def _require_a_twin(self) -> None:
        counted = self._is_fixed or self.blocks is not None
        require(not self.twin or counted, "student.solver.method", self.solver.method.value, "have fixed steps for a twin")
        require(self.blocks is None or self.twin, "student.blocks", self.blocks, "be none unless the student is a twin")
        require(self.blocks is None or self.blocks >= 1, "student.blocks", self.blocks, "be at least 1")

    @property
    def _is_fixed(self) -> bool:
        return self.solver.steps is not None and self.solver.method is not Method.REVERSIBLE

    def solver_in(self, epoch: int) -> Solver:
        """Return the solver of an epoch of its training, from 0."""
        if self.solver.steps is None or epoch >= self.coarse_epochs:
            return self.solver
        return replace(self.solver, steps=self.solver.steps // 2)
