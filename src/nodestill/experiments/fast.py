"""The recipes that are meant to be fast: the paper's accuracy in minutes. How they came about: docs/notes/record.md."""

from dataclasses import replace

from nodestill.data import Augment, Dataset
from nodestill.experiments.attack_recipe import RobustnessRecipe
from nodestill.experiments.model_recipes import Distillation, StudentRecipe, TeacherRecipe
from nodestill.experiments.recipe import Recipe
from nodestill.models import Norm, Pooling, Stem
from nodestill.ode import GradientMode, Method, Solver
from nodestill.precision import Precision
from nodestill.training import Optimizer, Schedule, Training

CIFAR10_VIEWS = Augment(crop_padding=4, flip=True)
SVHN_VIEWS = Augment(crop_padding=4)  # digits are not mirrored
_NARROW, _WIDE = (64, 128, 256), (96, 192, 384)  # channels of each equation


def _quick(epochs: int, views: Augment) -> Training:
    """Return how a teacher is trained that may cost a tenth of the time."""
    return Training(
        Optimizer.MUON,
        0.05,
        epochs,
        weight_decay=0.5,
        batch_size=250,
        schedule=Schedule.TRIANGLE,
        milestones=(0.2,),
        label_smoothing=0.1,
        augment=views,
        precision=Precision.BFLOAT16,
    )


def _quickest(epochs: int, views: Augment) -> Training:
    """Return how a student is trained whose convolutions stand in an equation or in front of a BatchNorm."""
    return Training(
        Optimizer.MUON,
        0.05,
        epochs,
        momentum=0.6,
        weight_decay=0.15,
        batch_size=500,
        schedule=Schedule.TRIANGLE,
        milestones=(0.02,),
        label_smoothing=0.2,
        augment=replace(views, crop_padding=2, reflect=True, alternate=views.flip),
        precision=Precision.BFLOAT16,
        vector_rate=500.0,
        filter_norm=0.4,
    )


def _fast(
    name: str, dataset: Dataset, views: Augment, widths: tuple[int, ...], epochs: tuple[int, int, int], about: str
) -> Recipe:
    """Return a teacher and a student of three equations, each solved in one midpoint step, and in two in its last epochs.

    Muon's steps have about one size in every direction. Its weight decay keeps f's kernels small, so that no equation is stiff
    and a finer solver gives the same accuracy; without it that was 12 % for 78 %. A convolution in front of a BatchNorm has
    no size of its own; there `filter_norm` says how far a step turns it.
    One step to the end was too coarse: a finer solver then lost up to one and a half points.
    The teacher is asked once for each image and has little weight: it is worse than the student becomes.

    Args:
        name: Of the recipe.
        dataset: Which images.
        views: How the teacher sees them.
        widths: Channels of each equation.
        epochs: Of the teacher, of the student with one step, and with two.
        about: What to expect.
    """
    student = _quickest(epochs[1] + epochs[2], views)
    solver = Solver(Method.MIDPOINT, steps=2, gradient=GradientMode.DIRECT, precision=Precision.BFLOAT16)
    return Recipe(
        name=name,
        dataset=dataset,
        teacher=TeacherRecipe(20, _quick(epochs[0], views)),
        student=StudentRecipe(
            Stem.SMOOTH,
            widths[0],
            1.0,
            solver,
            student,
            Distillation(3.0, 0.03, once=True),
            layers=2,
            norm=Norm.NONE,
            zero_last=True,
            further=widths[1:],
            pooling=Pooling.MAX,
            coarse_epochs=epochs[1],
        ),
        undistilled=student,
        controls=(),
        robustness=RobustnessRecipe(eps_255=(0, 2, 8), images=100, batch_size=100),
        about=about,
    )


def _varied(recipe: Recipe) -> Recipe:
    """Return a recipe for a longer training, whose student would else learn its images by heart: wider crops, cut-outs."""
    plan = recipe.student.training
    plan = replace(plan, augment=replace(plan.augment, crop_padding=4, cutout=8))
    return replace(recipe, student=replace(recipe.student, training=plan), undistilled=plan)


def _small_first(recipe: Recipe, epochs: int) -> Recipe:
    """Return a recipe whose student first sees pictures of 24 pixels, which cost half: it is the last epochs that decide."""
    plan = replace(recipe.student.training, sides=(24,) * epochs)
    return replace(recipe, student=replace(recipe.student, training=plan), undistilled=plan)


def _gpu() -> Recipe:
    """Return the single-equation student for half an hour of a large GPU. Its settings are those of a CPU: not yet measured."""
    about = "one wide equation for half an hour of a large GPU"
    base = _varied(_fast("cifar10-gpu", Dataset.CIFAR10, CIFAR10_VIEWS, (512,), (60, 80, 20), about))
    plan = replace(base.student.training, compiled=True)
    student = replace(base.student, training=plan, coarse_epochs=0)
    teacher = TeacherRecipe(56, replace(base.teacher.training, batch_size=500))
    return replace(base, student=student, undistilled=plan, teacher=teacher, robustness=RobustnessRecipe(eps_255=(0, 2, 8)))


def fast_recipes() -> list[Recipe]:
    """Return the fast recipes."""
    quick = "a Neural ODE in twenty minutes on two cores"
    hour = _fast("cifar10-fast", Dataset.CIFAR10, CIFAR10_VIEWS, _WIDE, (3, 16, 4), "a Neural ODE in an hour on two cores")
    return [
        _varied(_small_first(hour, 8)),
        _small_first(_fast("cifar10-faster", Dataset.CIFAR10, CIFAR10_VIEWS, _NARROW, (2, 8, 2), quick), 3),
        _fast("svhn-fast", Dataset.SVHN, SVHN_VIEWS, _WIDE, (3, 8, 2), "the same for SVHN"),
        _gpu(),
    ]
