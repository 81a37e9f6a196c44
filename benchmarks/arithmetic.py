"""The arithmetic of a training, epoch by epoch: the first may have smaller images, or half of the solver's steps.

An adaptive solver is counted at the evaluations of the weights that the model has.
"""

import torch
from torch import nn

from nodestill.experiments.members import build_model
from nodestill.experiments.model_recipes import StudentRecipe, TeacherRecipe
from nodestill.models import NeuralODEClassifier, forward_macs, macs
from nodestill.ode import Solver

Shape = tuple[int, int, int]  # of an image: 3, height, width


def macs_of(model: nn.Module, shape: Shape) -> float:
    """Return the multiply-accumulates of one image, forward."""
    if not isinstance(model, NeuralODEClassifier):
        return macs(model, torch.zeros(1, *shape))
    with torch.no_grad():
        calls = model.eval().predict(torch.zeros(1, *shape)).evaluations_by_equation[0].tolist()
    return forward_macs(model, shape, calls).total


def macs_by_epoch(model: nn.Module, recipe: TeacherRecipe | StudentRecipe, shape: Shape) -> list[float]:
    """Return the multiply-accumulates of one image, forward, in each epoch of a training."""
    settings = [_setting(recipe, shape, epoch) for epoch in range(recipe.training.epochs)]
    counted = {setting: _macs_in(model, *setting) for setting in set(settings)}
    return [counted[setting] for setting in settings]


def _setting(recipe: TeacherRecipe | StudentRecipe, shape: Shape, epoch: int) -> tuple[Shape, Solver | None]:
    sides, (_, height, width) = recipe.training.sides, shape
    side = sides[epoch] if epoch < len(sides) else min(height, width)
    rows, columns = (round(length * side / min(height, width)) for length in (height, width))
    return (3, rows, columns), recipe.solver_in(epoch) if isinstance(recipe, StudentRecipe) else None


def _macs_in(model: nn.Module, shape: Shape, solver: Solver | None) -> float:
    solved = isinstance(model, NeuralODEClassifier) and solver is not None
    return macs_of(model.with_solver(solver) if solved else model, shape)


def whole_epochs(recipe: TeacherRecipe | StudentRecipe, shape: Shape, classes: int) -> float:
    """Return how many epochs of whole images and all steps cost as much as a training."""
    if not recipe.training.sides and not getattr(recipe, "coarse_epochs", 0):
        return float(recipe.training.epochs)
    model = build_model(recipe, seed=0, num_classes=classes)
    return sum(macs_by_epoch(model, recipe, shape)) / macs_of(model, shape)
