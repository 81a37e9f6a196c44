"""What the fast recipes promise before anything is trained."""

import pytest
import torch

from nodestill.data import Dataset
from nodestill.experiments import Recipe
from nodestill.experiments.fast import fast_recipes
from nodestill.experiments.members import build_model
from nodestill.models import forward_macs

RECIPES = pytest.mark.parametrize("recipe", fast_recipes(), ids=lambda recipe: recipe.name)
TRAINING_IMAGES = {Dataset.CIFAR10: 50_000, Dataset.SVHN: 73_257}


def calls(recipe: Recipe) -> list[int]:
    model = build_model(recipe.student, 0, 10).eval()
    with torch.no_grad():
        return model.predict(torch.zeros(1, 3, 32, 32)).evaluations_by_equation[0].tolist()


@RECIPES
def test_the_equations_have_at_least_half_of_the_arithmetic(recipe):
    cost = forward_macs(build_model(recipe.student, 0, 10), (3, 32, 32), calls(recipe))
    assert cost.dynamics >= cost.total / 2


@RECIPES
def test_a_compiled_training_meets_one_size_of_batch(recipe):
    for plan in (recipe.student.training, recipe.undistilled):
        assert not plan.compiled or TRAINING_IMAGES[recipe.dataset] % plan.batch_size == 0


@RECIPES
def test_digits_are_not_mirrored(recipe):
    for plan in (recipe.teacher.training, recipe.student.training, recipe.undistilled):
        assert plan.augment.flip is (recipe.dataset is Dataset.CIFAR10)
