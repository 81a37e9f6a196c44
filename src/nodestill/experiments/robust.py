"""The recipes for students that resist perturbed images: a teacher that was trained on them, and a student that it teaches."""

from dataclasses import replace

from nodestill.attacks import LinfBudget
from nodestill.experiments.attack_recipe import RobustnessRecipe
from nodestill.experiments.model_recipes import Distillation, DistillationObjective
from nodestill.experiments.recipe import Recipe, Role
from nodestill.ode import GradientMode, Method, Solver

_TWO_GREYS = LinfBudget(32, step_255=16, steps=3)  # these images have sixteen greys


def robust_recipes(demo: Recipe) -> list[Recipe]:
    """Return the robust recipes; they have the networks of the demo."""
    return [_digits(demo)]


def _digits(demo: Recipe) -> Recipe:
    """Return the demo with a teacher and a student that are trained against attacks. Undistilled, the student is not.

    Most of the time goes into solves of the attack, so the solver is the cheapest of the adaptive ones that serve.
    """
    taught = Distillation(1.0, 5 / 6, DistillationObjective.RSLAD, once=True, adversarial=_TWO_GREYS)
    solver = Solver(Method.BOSH3, rtol=1e-2, atol=1e-2, first_step=0.5, gradient=GradientMode.DIRECT)
    teacher = replace(demo.teacher.training, epochs=20)
    return replace(
        demo,
        name="digits-robust",
        teacher=replace(demo.teacher, training=teacher, adversarial=_TWO_GREYS),
        student=replace(demo.student, distillation=taught, solver=solver),
        controls=(Role.UNDISTILLED,),
        robustness=RobustnessRecipe(eps_255=(0, 16, 32), images=200, batch_size=200),
        about="the demo's student made robust, by RSLAD from a robust teacher; undistilled it is not; minutes on two cores",
    )
