"""A model of ours as a `Subject`, with other ways to its gradient.

What is scored is always the model as it is deployed. The other ways may be better or worse approximations of the same
function: they serve to find images, and to compare gradients.
"""

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nodestill.attacks import LogitsFn, Subject
from nodestill.models import NeuralODEClassifier
from nodestill.ode import GradientMode, Precision, Solution, StepControl, StepRecord
from nodestill.shapes import Images, Logits
from nodestill.subjects.redirect import exactly, in_few_steps, tightened

FEW = 8  # steps of the way called fixed


def subject_of_model(model: nn.Module) -> Subject:
    """Return what an attack and an audit may know of a model of ours: failed solves give NaN logits instead of an exception.

    The paths of a Neural ODE: `recompute`, `direct` and `adjoint` are its own solver in each gradient mode; `tight` has a
    hundredth of the tolerances or four times the steps; `fixed` takes a few steps of rk4; `float64` is a copy of the model
    in double precision, made when it is first asked for. A model without equation has the last one alone.

    Args:
        model: In evaluation mode, its parameters frozen.

    Returns:
        The subject. Replay, reference and effort, and all paths but `direct` and `adjoint`, differentiate by RECOMPUTE.
    """
    double = _in_double(model)
    if not isinstance(model, NeuralODEClassifier):
        return Subject(model, {"float64": lambda images: double()(images.double())}, batch_independent=True, module=model)
    solver, adaptive, solves = model.solver, model.solver.method.is_adaptive, model.t1 > 0
    exact, ways = model.with_solver(exactly(solver)), _ways(model) if solves else {}
    return Subject(
        logits=lambda images: _logits(model, images),
        gradient_paths={**ways, "float64": lambda images: _logits(double(), images.double())},
        evaluations=lambda images: model.predict(images, raises=False).evaluations,
        batch_independent=solver.step_control is StepControl.PER_IMAGE or not adaptive,
        replay=lambda images: _replay(model, exact, images, images.dtype),
        reference=lambda images: _replay(model, double(), images, torch.float64),
        horizon_rescaled=_rescaled(model) if solves and model.t1 != 1 else None,  # a horizon of 1 is rescaled to itself
        effort=(lambda images: errors_of(exact.predict(images, raises=False).solutions)) if solves and adaptive else None,
        max_steps=(solver.max_steps if adaptive else solver.steps) if solves else 0,
        module=model,
    )


def _logits(model: NeuralODEClassifier, images: Images, steps: Sequence[StepRecord] = ()) -> Logits:
    return model.predict(images, replay=steps, raises=False).logits


def _in_double(model: nn.Module) -> Callable[[], Any]:
    """Return what makes a copy in double precision once, when it is first asked for."""

    @cache
    def copy() -> Any:
        double = deepcopy(model).double()
        if isinstance(double, NeuralODEClassifier):
            double = double.with_solver(replace(exactly(double.solver), precision=Precision.FLOAT32))
        return double

    return copy


def _ways(model: NeuralODEClassifier) -> dict[str, LogitsFn]:
    """Return the model under other solvers and gradient modes."""
    modes = (GradientMode.RECOMPUTE, GradientMode.DIRECT, GradientMode.ADJOINT)
    ways = {mode.value: replace(model.solver, gradient=mode) for mode in modes}
    few = max(FEW, 4 * math.ceil(math.sqrt(model.t1)))  # a long horizon needs more, or rk4 explodes
    ways |= {"tight": tightened(model.solver), "fixed": in_few_steps(model.solver, few)}
    others = {name: model.with_solver(solver) for name, solver in ways.items()}
    return {name: lambda images, other=other: _logits(other, images) for name, other in others.items()}


def _replay(model: NeuralODEClassifier, other: NeuralODEClassifier, images: Images, dtype: torch.dtype) -> LogitsFn:
    """Return another model, computed in some dtype, along the steps that the model takes from these images."""
    with torch.no_grad():
        steps = model.predict(images, raises=False).steps
    return lambda near: _logits(other, near.to(dtype), steps)


def errors_of(solutions: Sequence[Solution]) -> Float[Tensor, "batch 1"]:
    """Return the error estimates of an image's solves, summed: an effort of the solver that has a gradient."""
    return torch.stack([solution.error for solution in solutions], 1).sum(1, keepdim=True)


class _Rescaled(nn.Module):
    """f with its time measured in horizons, T f(T t, y): from 0 to 1 it does what f does from 0 to T."""

    def __init__(self, dynamics: nn.Module, t1: float) -> None:
        super().__init__()
        self.dynamics, self.t1 = dynamics, t1

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """Return the slope per horizon."""
        return self.t1 * self.dynamics(self.t1 * t, y)


def _rescaled(model: NeuralODEClassifier) -> LogitsFn:
    t1, first = model.t1, model.solver.first_step
    solver = replace(model.solver, first_step=None if first is None else first / t1)
    (_, f), *further = [(encoder, _Rescaled(dynamics, t1)) for encoder, dynamics in model.equations]
    other = NeuralODEClassifier(model.encoder, f, model.head, t1=1.0, solver=solver, further=further)
    other.training = model.training  # not by train(): the layers are the model's own
    return lambda images: _logits(other, images)
