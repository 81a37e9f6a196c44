"""How large the paper's grid is made: to the letter, for one GPU, for a CPU, or for a test.

A scale is what it changes in the paper's settings. `scaled` applies it to one of the paper's recipes; `scale_changes` says what
became of each field.
"""

from dataclasses import dataclass, replace
from enum import Enum

from nodestill.data import Augment, Dataset
from nodestill.experiments.attack_recipe import RobustnessRecipe
from nodestill.experiments.model_recipes import StudentRecipe
from nodestill.experiments.paper import paper
from nodestill.experiments.recipe import Recipe
from nodestill.models import Stem
from nodestill.ode import GradientMode, Method, Solver
from nodestill.precision import Precision
from nodestill.training import Optimizer, Training

LONG = 100.0  # from this horizon on fewer images are attacked, and gradients recompute the steps


class ScaleName(Enum):
    """The scales there are."""

    SMOKE = "smoke"
    CPU = "cpu"
    GPU = "gpu"
    PAPER = "paper"


@dataclass(frozen=True)
class Shrunk:
    """What a scale has in place of the paper's values; the schedule of the rate, the losses and the attacks stay the paper's.

    Args:
        teacher_epochs: Of every teacher.
        epochs: Of every student, so that horizons differ in nothing else.
        channels: Of the state.
        sgd_rate: Of students trained by SGD.
        adam_rate: Of students trained by Adam.
        solver: Of every student.
        images: Test images attacked at t1 below 100, from the first; None for all.
        long_images: At the others, from the first too: horizons are compared on these.
        eps_255: Radii.
        teacher_width: Channels of a teacher's first stage; its depth stays.
        layers: Convolutions in f.
        precision: Arithmetic of trainings outside f.
        dataset: Other images.
        views: How they are varied.
        stem: How they become a state.
    """

    teacher_epochs: int
    epochs: int
    channels: int
    sgd_rate: float
    adam_rate: float
    solver: Solver
    images: int | None
    long_images: int | None
    eps_255: tuple[int, ...]
    teacher_width: int = 16
    layers: int = 4
    precision: Precision = Precision.FLOAT32
    dataset: Dataset | None = None
    views: Augment | None = None
    stem: Stem = Stem.DOWN4


@dataclass(frozen=True)
class Scale:
    """How large the grid is made.

    Args:
        name: What it is called.
        about: What it costs.
        seeds: Trainings of the cells that are repeated, if no other number is asked for; of the others one.
        sgd_rates: Rates tried where the rate of SGD is tuned; as many as `adam_rates`.
        adam_rates: Likewise for Adam.
        scored_images: Test images scored under other solvers, from the first.
        monitor_images: Test images evaluated after each epoch.
        shrunk: What it changes; None for nothing.
    """

    name: ScaleName
    about: str
    seeds: int
    sgd_rates: tuple[float, ...]
    adam_rates: tuple[float, ...]
    scored_images: int = 10_000
    monitor_images: int = 1000
    shrunk: Shrunk | None = None


_SOME_RADII = (0, 1, 2, 4, 8, 12, 16, 20)

_SMOKE = Shrunk(
    teacher_epochs=2,
    epochs=2,
    channels=4,
    sgd_rate=0.02,
    adam_rate=0.005,
    solver=Solver(Method.DOPRI5, rtol=1e-1, atol=1e-1, gradient=GradientMode.DIRECT),
    images=20,
    long_images=10,
    eps_255=(0, 8, 12, 16, 20),
    teacher_width=2,
    layers=1,
    dataset=Dataset.DIGITS,
    views=Augment(crop_padding=1),
    stem=Stem.FLAT,
)

_CPU = Shrunk(
    teacher_epochs=4,
    epochs=3,
    channels=16,
    sgd_rate=0.02,
    adam_rate=0.005,
    solver=Solver(rtol=1e-2, atol=1e-2, gradient=GradientMode.DIRECT, precision=Precision.BFLOAT16),
    images=1000,
    long_images=256,
    eps_255=_SOME_RADII,
    teacher_width=8,
    precision=Precision.BFLOAT16,
)

_GPU = Shrunk(
    teacher_epochs=30,
    epochs=10,
    channels=512,
    sgd_rate=0.01,
    adam_rate=0.001,
    solver=Solver(rtol=1e-2, atol=1e-2, precision=Precision.BFLOAT16),
    images=2000,
    long_images=500,
    eps_255=_SOME_RADII,
    precision=Precision.BFLOAT16,
)

_SCALES = (
    Scale(ScaleName.SMOKE, "digits, minutes; for tests", 2, (0.005, 0.05), (0.002, 0.02), 50, 50, _SMOKE),
    Scale(
        ScaleName.CPU,
        "narrow models, few epochs; meant for about six hours of two cores",
        3,
        (0.005, 0.02, 0.08),
        (0.001, 0.005, 0.02),
        2000,
        500,
        _CPU,
    ),
    Scale(
        ScaleName.GPU,
        "full width, few epochs; meant for a day of one modern GPU",
        2,
        (0.003, 0.01, 0.03),
        (0.0003, 0.001, 0.003),
        shrunk=_GPU,
    ),
    Scale(ScaleName.PAPER, "the paper to the letter", 1, (0.001, 0.01, 0.1), (0.0001, 0.001, 0.01)),
)


def scale_named(name: ScaleName) -> Scale:
    """Return a scale by name."""
    return next(scale for scale in _SCALES if scale.name is name)


def scaled(scale: Scale, dataset: Dataset, depth: int, temperature: float, t1: float) -> Recipe:
    """Return a cell of the paper at a scale: its teacher, its distilled student, its undistilled training, its attack."""
    recipe = replace(paper(dataset, depth, temperature, t1), monitor_images=scale.monitor_images)
    small = scale.shrunk
    if small is None:
        return recipe
    long = t1 >= LONG
    teacher = replace(
        recipe.teacher,
        width=small.teacher_width,
        training=_shrunk_training(recipe.teacher.training, small, small.teacher_epochs),
    )
    robustness = RobustnessRecipe(eps_255=small.eps_255, images=small.long_images if long else small.images)
    return replace(
        recipe,
        dataset=small.dataset or dataset,
        teacher=teacher,
        student=_shrunk_student(recipe.student, small),
        undistilled=_shrunk_training(_at_rate(recipe.undistilled, small), small, small.epochs),
        robustness=robustness,
    )


def _shrunk_student(student: StudentRecipe, small: Shrunk) -> StudentRecipe:
    return replace(
        student,
        stem=small.stem,
        channels=small.channels,
        layers=small.layers,
        solver=small.solver if student.t1 < LONG else replace(small.solver, gradient=GradientMode.RECOMPUTE),  # memory
        training=_shrunk_training(_at_rate(student.training, small), small, small.epochs),
    )


def _at_rate(plan: Training, small: Shrunk) -> Training:
    return replace(plan, lr=small.sgd_rate if plan.optimizer is Optimizer.SGD else small.adam_rate)


def _shrunk_training(plan: Training, small: Shrunk, epochs: int) -> Training:
    return replace(plan, epochs=epochs, precision=small.precision, augment=small.views or plan.augment)
