"""Fields of recipes that are out of range, told in one way."""

from nodestill.attacks import LinfBudget
from nodestill.errors import RecipeError


def require(holds: bool, name: str, value: object, expected: str) -> None:
    """Raise `RecipeError` unless a condition holds: which field must be what, and what it is."""
    if not holds:
        raise RecipeError(f"{name} must {expected}. Got {value}.")


def require_perturbing(name: str, budget: LinfBudget) -> None:
    """Raise `RecipeError` if a budget of a training on perturbed images perturbs nothing."""
    require(budget.eps_255 >= 1, f"{name}.eps_255", budget.eps_255, "be at least 1: at 0 nothing is perturbed; 8 is usual")
    require(budget.steps >= 1, f"{name}.steps", budget.steps, "be at least 1: without a step nothing is sought; 10 is usual")
