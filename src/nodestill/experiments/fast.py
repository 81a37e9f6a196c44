"""The recipes that are meant to be fast: the paper's accuracy in minutes. How they came about: docs/notes/record.md."""

from dataclasses import replace

from nodestill.data import Augment, Dataset
from nodestill.experiments.recipe import Distillation, Recipe, RobustnessRecipe, StudentRecipe, TeacherRecipe
from nodestill.models import Norm, Pooling, Stem
from nodestill.ode import GradientMode, Method, Solver
from nodestill.precision import Precision
from nodestill.training import Optimizer, Schedule, Training

CIFAR10_VIEWS = Augment(crop_padding=4, flip=True)
SVHN_VIEWS = Augment(crop_padding=4)  # digits are not mirrored


def _quick(optimizer: Optimizer, lr: float, epochs: int, views: Augment) -> Training:
    return Training(
        optimizer,
        lr,
        epochs,
        batch_size=250,
        schedule=Schedule.TRIANGLE,
        milestones=(0.2,),
        label_smoothing=0.1,
        augment=views,
        precision=Precision.BFLOAT16,
    )


def _fast(name: str, dataset: Dataset, views: Augment, epochs: int, teacher_epochs: int, about: str) -> Recipe:
    teacher = replace(_quick(Optimizer.SGD, 0.2, teacher_epochs, views), weight_decay=5e-4)
    student = _quick(Optimizer.SGD, 0.2, epochs, replace(views, crop_padding=2, reflect=True, alternate=views.flip))
    solver = Solver(Method.MIDPOINT, steps=2, gradient=GradientMode.DIRECT, precision=Precision.BFLOAT16)
    return Recipe(
        name=name,
        dataset=dataset,
        teacher=TeacherRecipe(20, teacher),
        student=StudentRecipe(
            Stem.WHITENED,
            64,
            1.0,
            solver,
            student,
            Distillation(3.0, 0.5),
            layers=2,
            norm=Norm.NONE,
            zero_last=True,
            further=(128,),
            pooling=Pooling.MAX,
        ),
        undistilled=student,
        controls=(),
        robustness=RobustnessRecipe(eps_255=(0, 2, 8), images=100, batch_size=100),
        about=about,
    )


def _gpu() -> Recipe:
    """Return the single-equation student for half an hour of a large GPU: 4.2 GMAC an image, 1.3e17 FLOP in all."""
    base = _fast("cifar10-gpu", Dataset.CIFAR10, CIFAR10_VIEWS, 100, 60, "one wide equation for half an hour of a large GPU")
    plan = replace(base.student.training, batch_size=500, weight_decay=5e-4, compiled=True)
    student = replace(base.student, channels=512, further=(), training=plan)
    teacher = TeacherRecipe(56, replace(base.teacher.training, batch_size=500))
    return replace(base, student=student, undistilled=plan, teacher=teacher, robustness=RobustnessRecipe(eps_255=(0, 2, 8)))


def fast_recipes() -> list[Recipe]:
    """Return the fast recipes."""
    return [
        _fast("cifar10-fast", Dataset.CIFAR10, CIFAR10_VIEWS, 24, 6, "a Neural ODE in an hour on two cores"),
        _fast("cifar10-faster", Dataset.CIFAR10, CIFAR10_VIEWS, 8, 3, "a Neural ODE in twenty minutes on two cores"),
        _fast("svhn-fast", Dataset.SVHN, SVHN_VIEWS, 12, 3, "the same for SVHN"),
        _gpu(),
    ]
