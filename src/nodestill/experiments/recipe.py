"""What is asked of an experiment, as one frozen value: teacher, student, its controls, and how they are attacked.

A stage's fingerprint covers only the part it depends on, so that many students share one teacher.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum

from nodestill.attacks import AttackName, Effort, LinfBudget, Protocol
from nodestill.data import Dataset
from nodestill.errors import RecipeError
from nodestill.models import Activation, Norm, Pooling, Stem
from nodestill.ode import Method, Solver
from nodestill.training import Training


class Role(Enum):
    """What a model is in its experiment."""

    TEACHER = "teacher"
    DISTILLED = "distilled"
    UNDISTILLED = "undistilled"  # the student trained on labels alone
    STEM_ONLY = "stem-only"  # the distilled student with t1 = 0: what the stem does without the ODE
    TWIN = "discrete-twin"  # the distilled student with residual blocks in place of the ODE, at equal cost


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
        _require(self.temperature > 0, "temperature", self.temperature, "be positive; the paper uses 3, 10 and 20")
        _require(0 <= self.kd_weight <= 1, "kd_weight", self.kd_weight, "lie in [0, 1]; the paper uses 0.9")
        _require_perturbing("distillation.adversarial", self.adversarial)
        perturbs = self.objective in _PERTURBING
        expected = "be left out where nothing is perturbed: choose ard or rslad"
        _require(perturbs or self.adversarial == USUAL_ATTACK, "distillation.adversarial", self.adversarial, expected)


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
        _require(self.depth >= 8 and self.depth % 6 == 2, "teacher.depth", self.depth, "be 6 n + 2; the paper uses 20 to 110")
        even = self.width >= 2 and self.width % 2 == 0
        _require(even, "teacher.width", self.width, "be even and at least 2; 16 is the published network")
        if self.adversarial is not None:
            _require_perturbing("teacher.adversarial", self.adversarial)
            mistaken = self.training.double_softmax
            _require(not mistaken, "teacher.training.double_softmax", mistaken, "be false on perturbed images")


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
        halves = self.solver.steps is not None and self.solver.steps % 2 == 0
        fits = self.coarse_epochs == 0 or (halves and 0 < self.coarse_epochs < self.training.epochs)
        expected = "be 0, or below the epochs, of a solver of an even number of fixed steps"
        _require(fits, "student.coarse_epochs", self.coarse_epochs, expected)
        small, asked_once = self.training.sides, self.distillation is None or self.distillation.once
        expected = "be none unless distillation.once is true: a teacher that is asked on each view knows no small images"
        _require(not small or asked_once, "student.training.sides", small, expected)
        fixed = self.solver.steps is not None and self.solver.method is not Method.REVERSIBLE
        counted = fixed or self.blocks is not None
        _require(not self.twin or counted, "student.solver.method", self.solver.method.value, "have fixed steps for a twin")
        _require(self.blocks is None or self.twin, "student.blocks", self.blocks, "be none unless the student is a twin")
        _require(self.blocks is None or self.blocks >= 1, "student.blocks", self.blocks, "be at least 1")
        perturbed = self.distillation is not None and self.distillation.objective in _PERTURBING
        mistaken = self.training.double_softmax
        _require(not (mistaken and perturbed), "student.training.double_softmax", mistaken, "be false in ard and rslad")
        _require(0 < self.f_scale < float("inf"), "student.f_scale", self.f_scale, "be positive and finite; 1 is usual")
        _require(all(c >= 1 for c in self.further), "student.further", self.further, "hold channels of at least 1")
        _require(fixed or not self.training.compiled, "student.training.compiled", True, "be false unless steps are fixed")
        _require(self.channels >= 1, "student.channels", self.channels, "be at least 1; the paper uses 512")
        _require(0 <= self.t1 < float("inf"), "student.t1", self.t1, "be finite and >= 0; the paper uses 1, 100 and 500")
        _require(self.layers >= 1, "student.layers", self.layers, "be at least 1; the paper uses 4")

    def solver_in(self, epoch: int) -> Solver:
        """Return the solver of an epoch of its training, from 0."""
        coarse = epoch < self.coarse_epochs and self.solver.steps is not None
        return replace(self.solver, steps=self.solver.steps // 2) if coarse else self.solver


PAPERS_ATTACKS = (AttackName.PGD, AttackName.MI_FGSM)


@dataclass(frozen=True)
class RobustnessRecipe:
    """How models are attacked.

    Args:
        protocol: Whose rules; see `nodestill.attacks`.
        attacks: Which attacks.
        eps_255: Radii in 1/255, increasing.
        images: Number of test images, from the first; None for all.
        batch_size: Images attacked at a time.
        seed: Of the random starts.
        effort: How hard each attack of the protocol `sound` tries.
    """

    protocol: Protocol = Protocol.CHU2022
    attacks: tuple[AttackName, ...] = PAPERS_ATTACKS
    eps_255: tuple[int, ...] = tuple(range(21))
    images: int | None = None
    batch_size: int = 250
    seed: int = 0
    effort: Effort = field(default=Effort(), metadata={"later": True})

    def __post_init__(self) -> None:
        radii = self.eps_255
        ordered = list(radii) == sorted(set(radii)) and all(0 <= eps <= 255 for eps in radii)
        _require(ordered and bool(radii), "robustness.eps_255", radii, "be increasing whole numbers of 1/255 from 0 to 255")
        known = [attack.value for attack in (PAPERS_ATTACKS if self.protocol is Protocol.CHU2022 else AttackName)]
        named = [attack.value for attack in self.attacks]
        _require(bool(named), "robustness.attacks", named, f"name at least one: {', '.join(known)}")
        whose = f"be among {', '.join(known)}, those of the protocol {self.protocol.value}"
        _require(set(named) <= set(known), "robustness.attacks", named, whose)
        _require(self.images is None or self.images >= 1, "robustness.images", self.images, "be at least 1, or none for all")
        _require(self.batch_size >= 1, "robustness.batch_size", self.batch_size, "be at least 1")


@dataclass(frozen=True)
class Recipe:
    """An experiment: one teacher, one student, the student's controls, and the attack on all of them.

    Args:
        name: What it is called; part of folder names.
        dataset: Which images.
        teacher: The residual network.
        student: The distilled Neural ODE.
        undistilled: How the student is trained without a teacher (the paper changes the optimiser).
        controls: Which further models are trained: undistilled, stem-only, discrete-twin.
        robustness: How all of them are attacked.
        seed: Of initial weights, order and augmentation.
        monitor_images: Test images evaluated after each epoch, for the training curves only.
        about: One line for `nodestill recipes`: what to expect, and what it costs.
    """

    name: str
    dataset: Dataset
    teacher: TeacherRecipe
    student: StudentRecipe
    undistilled: Training
    controls: tuple[Role, ...] = (Role.UNDISTILLED, Role.STEM_ONLY)
    robustness: RobustnessRecipe = field(default_factory=RobustnessRecipe)
    seed: int = 0
    monitor_images: int = 1000
    about: str = ""

    def __post_init__(self) -> None:
        allowed = {Role.UNDISTILLED, Role.STEM_ONLY, Role.TWIN}
        among = "be among undistilled, stem-only and discrete-twin"
        _require(set(self.controls) <= allowed, "controls", [role.value for role in self.controls], among)
        _require(
            self.student.distillation is not None, "student.distillation", None, "be set: the student is the distilled one"
        )
        _require(self.student.t1 > 0, "student.t1", self.student.t1, "be positive: name stem-only among the controls")
        _require(not self.student.twin, "student.twin", True, "be false: name discrete-twin among the controls")
        self.students()  # refuses what does not fit together in a control
        _require(self.monitor_images >= 0, "monitor_images", self.monitor_images, "not be negative; 0 switches it off")
        _require(-(2**63) <= self.seed < 2**63, "seed", self.seed, "fit into 64 bits")
        plain = bool(self.name) and self.name[0] != "." and "/" not in self.name and self.name.isprintable()
        _require(plain, "name", repr(self.name), "be a plain word: it names a folder")

    def students(self) -> dict[Role, StudentRecipe]:
        """Return the distilled student and its controls by role."""
        solved_once = replace(self.student, coarse_epochs=0)  # these have no solver
        variants: dict[Role, Callable[[], StudentRecipe]] = {
            Role.UNDISTILLED: lambda: replace(self.student, distillation=None, training=self.undistilled),
            Role.STEM_ONLY: lambda: replace(solved_once, t1=0.0),
            Role.TWIN: lambda: replace(solved_once, twin=True),
        }
        return {Role.DISTILLED: self.student, **{role: variants[role]() for role in self.controls}}


def _require_perturbing(name: str, budget: LinfBudget) -> None:
    _require(budget.eps_255 >= 1, f"{name}.eps_255", budget.eps_255, "be at least 1: at 0 nothing is perturbed; 8 is usual")
    _require(budget.steps >= 1, f"{name}.steps", budget.steps, "be at least 1: without a step nothing is sought; 10 is usual")


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise RecipeError(f"{name} must {expected}. Got {value}.")
