"""The recipes, as values, and the numbers that the paper published.

A recipe's `about` says what to expect and what it costs; `nodestill recipes` prints it.
"""

from dataclasses import replace

from nodestill.data import Augment, Dataset
from nodestill.errors import RecipeError
from nodestill.experiments.attack_recipe import RobustnessRecipe
from nodestill.experiments.fast import CIFAR10_VIEWS, SVHN_VIEWS, fast_recipes
from nodestill.experiments.model_recipes import Distillation, DistillationObjective, StudentRecipe, TeacherRecipe
from nodestill.experiments.plain import unknown_name
from nodestill.experiments.recipe import Recipe, Role
from nodestill.experiments.robust import robust_recipes
from nodestill.models import Norm, Stem
from nodestill.ode import GradientMode, Method, Solver
from nodestill.precision import Precision
from nodestill.training import Optimizer, Schedule, Training

# Chu et al. 2022, percent. Table 1; its CIFAR-10 row is shifted in the copy at hand and ResNet-110's number lost.
PAPER_TEACHERS = {
    Dataset.CIFAR10: {20: 89.09, 32: 88.75, 44: 90.32, 56: 89.95},
    Dataset.SVHN: {20: 91.68, 32: 90.96, 44: 93.20, 56: 94.58, 110: 92.54},
}
PAPER_UNDISTILLED = {
    Dataset.CIFAR10: {1.0: 63.45, 100.0: 62.38, 500.0: 69.94},
    Dataset.SVHN: {1.0: 88.36, 100.0: 88.68},
}
# Table 3: NODE(500) without distillation under PGD, by radius in 1/255.
PAPER_UNDER_PGD = {Dataset.CIFAR10: {8: 25.07, 12: 23.60, 16: 21.29, 20: 20.24}}
# Table 2: distilled NODE(1) with 512 channels, by temperature and teacher.
PAPER_DISTILLED: dict[Dataset, dict[float, dict[int, float]]] = {
    Dataset.CIFAR10: {
        3: {20: 86.72, 32: 86.42, 44: 86.08, 56: 86.32},
        10: {20: 87.36, 32: 87.75, 44: 88.03, 56: 86.94, 110: 87.80},
        20: {20: 87.96, 32: 87.79, 44: 87.10, 56: 87.01, 110: 87.41},
    },
    Dataset.SVHN: {
        3: {20: 93.46, 32: 92.89, 44: 93.12, 56: 93.02, 110: 93.53},
        10: {20: 93.12, 32: 92.74, 44: 92.46, 56: 92.74, 110: 93.14},
        20: {20: 92.77, 32: 92.24, 44: 92.22, 56: 92.67, 110: 93.18},
    },
}


def published(recipe: Recipe) -> dict[str, float]:
    """Return the paper's clean accuracy in percent by role, for a recipe with its widths, layers, weight and clean images."""
    student, distillation = recipe.student, recipe.student.distillation
    is_papers = (student.channels, student.layers, recipe.teacher.width) == (512, 4, 16)
    changed = student.frozen or student.f_scale != 1 or student.training.double_softmax or recipe.undistilled.double_softmax
    if changed or not is_papers or distillation is None or distillation.kd_weight != 0.9:
        return {}
    if distillation.objective is not DistillationObjective.HINTON or recipe.teacher.adversarial is not None:
        return {}
    depth = recipe.teacher.depth
    found = {
        Role.TEACHER: PAPER_TEACHERS.get(recipe.dataset, {}).get(depth),
        Role.UNDISTILLED: PAPER_UNDISTILLED.get(recipe.dataset, {}).get(student.t1),
    }
    if student.t1 == 1:
        of_temperature = PAPER_DISTILLED.get(recipe.dataset, {}).get(distillation.temperature, {})
        found[Role.DISTILLED] = of_temperature.get(depth)
    return {role.value: percent for role, percent in found.items() if percent is not None}


def paper(dataset: Dataset, depth: int, temperature: float, t1: float) -> Recipe:
    """Return a cell of the paper to the letter: Chu et al. 2022, section 3, with the open points decided as documented."""
    cifar = dataset is Dataset.CIFAR10
    views = CIFAR10_VIEWS if cifar else SVHN_VIEWS
    teacher = Training(Optimizer.SGD, 0.01 if depth == 110 else 0.1, 300 if cifar else 40, weight_decay=1e-4, augment=views)
    adam = Training(Optimizer.ADAM, 0.001, 200 if cifar else 40, augment=views)
    student = StudentRecipe(
        stem=Stem.DOWN4,
        channels=512,
        t1=t1,
        solver=Solver(),
        training=replace(adam, optimizer=Optimizer.SGD) if t1 == 1 else adam,
        distillation=Distillation(temperature, 0.9),
    )
    return Recipe(
        name=f"paper-{dataset.value}-node{t1:g}",
        dataset=dataset,
        teacher=TeacherRecipe(depth, teacher),
        student=student,
        undistilled=adam,
        about=f"the paper to the letter: NODE({t1:g}), 512 channels, ResNet-{depth}, T = {temperature:g}; days on one GPU",
    )


def _short(lr: float, epochs: int, views: Augment, weight_decay: float, precision: Precision) -> Training:
    """Return a short strong training: Nesterov SGD with a triangular rate."""
    return Training(
        Optimizer.SGD,
        lr,
        epochs,
        weight_decay=weight_decay,
        schedule=Schedule.TRIANGLE,
        milestones=(0.25,),
        augment=views,
        precision=precision,
    )


def _demo() -> Recipe:
    views = Augment(crop_padding=1)
    teacher = _short(0.1, 40, views, 5e-4, Precision.FLOAT32)
    student = Training(Optimizer.ADAM, 0.01, 12, batch_size=32, schedule=Schedule.TRIANGLE, milestones=(0.25,), augment=views)
    return Recipe(
        name="demo",
        dataset=Dataset.DIGITS,
        teacher=TeacherRecipe(20, teacher, width=8),
        student=StudentRecipe(
            Stem.FLAT, 16, 1.0, Solver(), student, Distillation(3.0, 0.9), layers=2, norm=Norm.NONE, zero_last=True
        ),
        undistilled=student,
        robustness=RobustnessRecipe(eps_255=(0, 8, 16, 24, 32, 48), images=200, batch_size=200),
        monitor_images=360,
        about="the whole story on scikit-learn's handwritten digits, in minutes on two cores",
    )


def _smoke(dataset: Dataset, views: Augment) -> Recipe:
    teacher = _short(0.2, 3, views, 5e-4, Precision.BFLOAT16)
    student = Training(
        Optimizer.ADAM,
        0.005,
        2,
        schedule=Schedule.TRIANGLE,
        milestones=(0.25,),
        augment=views,
        precision=Precision.BFLOAT16,
    )
    # Of third order: at this tolerance, where stability more than accuracy sets the steps, half the evaluations of dopri5.
    solver = Solver(
        Method.BOSH3, rtol=1e-2, atol=1e-2, first_step=0.5, gradient=GradientMode.DIRECT, precision=Precision.BFLOAT16
    )
    return Recipe(
        name=f"{dataset.value}-smoke",
        dataset=dataset,
        teacher=TeacherRecipe(20, teacher),
        student=StudentRecipe(
            Stem.DOWN4, 64, 1.0, solver, student, Distillation(3.0, 0.9), layers=2, norm=Norm.NONE, zero_last=True
        ),
        undistilled=student,
        robustness=RobustnessRecipe(eps_255=(0, 1, 2, 4, 8, 12, 16, 20), images=200, batch_size=100),
        about="real images, a ResNet-20 and a 64-channel NODE(1), a quarter of an hour on two cores",
    )


_RECIPES = (
    _demo(),
    *fast_recipes(),
    *robust_recipes(_demo()),
    _smoke(Dataset.CIFAR10, CIFAR10_VIEWS),
    _smoke(Dataset.SVHN, SVHN_VIEWS),
    paper(Dataset.CIFAR10, 44, 10.0, 1.0),
    paper(Dataset.CIFAR10, 44, 10.0, 100.0),
    paper(Dataset.SVHN, 110, 3.0, 1.0),
    paper(Dataset.SVHN, 110, 3.0, 100.0),
)


def recipes() -> dict[str, Recipe]:
    """Return all recipes by name."""
    return {recipe.name: recipe for recipe in _RECIPES}


def recipe_named(name: str) -> Recipe:
    """Return a recipe by name; raises `RecipeError` with the names there are."""
    known = recipes()
    if name not in known:
        raise RecipeError(unknown_name("There is no recipe", name, known))
    return known[name]
