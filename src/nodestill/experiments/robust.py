"""The recipes for students that resist perturbed images: a teacher that was trained on them, and a student that it teaches."""

from dataclasses import replace

from nodestill.attacks import LinfBudget
from nodestill.experiments.recipe import Distillation, DistillationObjective, Recipe, RobustnessRecipe

_DIGITS_ATTACK = LinfBudget(32, step_255=10, steps=5)  # two of the sixteen greys of these images, about


def robust_recipes(demo: Recipe) -> list[Recipe]:
    """Return the robust recipes; the first has the models of the demo."""
    return [_digits(demo)]


def _digits(demo: Recipe) -> Recipe:
    teacher = replace(demo.teacher, training=replace(demo.teacher.training, epochs=20), adversarial=_DIGITS_ATTACK)
    taught = Distillation(1.0, 5 / 6, DistillationObjective.RSLAD, once=True, adversarial=_DIGITS_ATTACK)
    training = replace(demo.student.training, batch_size=64)
    return replace(
        demo,
        name="digits-robust",
        teacher=teacher,
        student=replace(demo.student, distillation=taught, training=training),
        controls=demo.controls[:1],
        robustness=RobustnessRecipe(eps_255=(0, 16, 32, 48), images=200, batch_size=200),
        about="the demo's student by RSLAD from a teacher trained on perturbed images; undistilled it is not robust",
    )
