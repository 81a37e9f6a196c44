"""A model as a `Subject`, with other ways to its gradient: one of ours, one that calls torchdiffeq, one from anybody's file.

What is scored is always the model as it is deployed. The other ways may be better or worse approximations of the same
function: they serve to find images, and to compare gradients.
"""

import importlib.util
import math
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from nodestill.attacks import LogitsFn, Subject
from nodestill.attacks.subject import GAVE_UP
from nodestill.errors import DataError, InputError, NodestillError
from nodestill.experiments.redirect import Change, RedirectedSolve, by_adjoint, exactly, in_few_steps, redirected, tightened
from nodestill.models import NeuralODEClassifier
from nodestill.ode import GradientMode, Precision, Solution, StepControl, StepRecord
from nodestill.shapes import Images, Logits

_FEW = 8


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
        effort=(lambda images: _errors(exact.predict(images, raises=False).solutions)) if solves and adaptive else None,
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
    few = max(_FEW, 4 * math.ceil(math.sqrt(model.t1)))  # a long horizon needs more, or rk4 explodes
    ways |= {"tight": tightened(model.solver), "fixed": in_few_steps(model.solver, few)}
    others = {name: model.with_solver(solver) for name, solver in ways.items()}
    return {name: lambda images, other=other: _logits(other, images) for name, other in others.items()}


def _replay(model: NeuralODEClassifier, other: NeuralODEClassifier, images: Images, dtype: torch.dtype) -> LogitsFn:
    """Return another model, computed in some dtype, along the steps that the model takes from these images."""
    with torch.no_grad():
        steps = model.predict(images, raises=False).steps
    return lambda near: _logits(other, near.to(dtype), steps)


def _errors(solutions: Sequence[Solution]) -> Float[Tensor, "batch 1"]:
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


def subject_of_torchdiffeq(model: nn.Module, images: Images | None = None) -> Subject:
    """Return what an attack and an audit may know of a model that calls torchdiffeq.

    It is scored as it is. Where torchdiffeq gives up on an image it stops, so its whole batch gets NaN logits. The paths:
    `autograd` is the model as it is; under the others its calls are solved by ours, with steps shared by the batch.
    `adjoint` has the gradient of the adjoint equation; `exact` that of our steps, of which torchdiffeq's own differs by the
    derivative of its first step size, which depends on the whole batch; `tight` and `fixed` as in `subject_of_model`.

    Args:
        model: In evaluation mode, its parameters frozen; maps images in [0, 1] to logits.
        images: A few images, to see once how the model calls torchdiffeq. None takes two grey ones of 32 x 32.

    Returns:
        The subject. Evaluations are those of our solves, which take nearly torchdiffeq's steps.

    Raises:
        InputError: If torchdiffeq is missing or not called, if a call cannot be redirected, or if no logits come out.
    """
    images = _grey(model) if images is None else images
    if solves := _seen("The model", model, images):
        return _subject_of_solves(model, solves, images)
    raise InputError("The model made no call of torchdiffeq's odeint or odeint_adjoint. Attack it as Subject(model).")


def _subject_of_solves(model: nn.Module, solves: Sequence[RedirectedSolve], images: Images) -> Subject:
    changes: dict[str, Change] = {
        "adjoint": by_adjoint,
        "exact": exactly,
        "tight": tightened,
        "fixed": lambda solver: in_few_steps(solver, _FEW),
    }
    limits, deployed = [solve.max_steps for solve in solves], _deployed(model)
    adapts = all(solve.asked.steps is None and len(solve.solution.error) == len(images) for solve in solves)
    return Subject(
        logits=deployed,
        gradient_paths={"autograd": deployed, **{name: _under(change, model) for name, change in changes.items()}},
        evaluations=lambda images: _counted(model, images),
        effort=(lambda images: _errors(_solutions(model, images))) if adapts else None,
        max_steps=None if None in limits else max(limit for limit in limits if limit is not None),
        module=model,
    )


def _under(change: Change, model: nn.Module) -> LogitsFn:
    def logits(images: Images) -> Logits:
        with redirected(change):
            return model(images)

    return logits


def _deployed(model: nn.Module) -> LogitsFn:
    def logits(images: Images) -> Logits:
        try:
            return model(images)
        except AssertionError as error:
            if not str(error).startswith(GAVE_UP):
                raise
        return torch.nan * _under(lambda solver: in_few_steps(solver, 1), model)(images)  # the right shape, and a gradient

    return logits


def _solutions(model: nn.Module, images: Images) -> list[Solution]:
    with redirected(exactly) as solves:
        model(images)
    return [solve.solution for solve in solves]


def _counted(model: nn.Module, images: Images) -> Int64[Tensor, " batch"]:
    total = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    with torch.no_grad():
        for counts in (solution.stats.evaluations for solution in _solutions(model, images)):
            total += counts if len(counts) == len(images) else counts.max()  # a state may hold several rows an image
    return total


def _grey(model: nn.Module) -> Images:
    return torch.full((2, 3, 32, 32), 0.5, device=next(model.parameters(), torch.zeros(())).device)


def _seen(name: str, model: nn.Module, images: Images) -> Sequence[RedirectedSolve]:
    """Return what one forward pass asks of torchdiffeq, after checking that logits come out of it."""
    there = importlib.util.find_spec("torchdiffeq") is not None
    block: AbstractContextManager[list[RedirectedSolve]] = redirected() if there else nullcontext([])
    try:
        with torch.no_grad(), block as solves:
            logits = model(images)
    except NodestillError:
        raise
    except Exception as error:
        raise InputError(
            f"{name} fails on images of shape {tuple(images.shape)}: {type(error).__name__}: {error}. "
            "It must take floats in [0, 1], shape (batch, 3, height, width). Try it on images of the size it is made for."
        ) from error
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(images) or not logits.is_floating_point():
        seen = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise InputError(f"{name} must return logits of shape (batch, classes), got {seen}. Return the logits alone.")
    return solves


def subject_from_file(asked: str, images: Images | None = None) -> Subject:
    """Make a subject of a model in a Python file, which is run; it may import its neighbours.

    Args:
        asked: File and name in it, as in `path/to/model.py:net`: a module or a `Subject`, or a function or class without
            arguments that makes one. A module is put into evaluation mode and frozen.
        images: A few images, on the device to compute on, on which a module is tried. None takes two grey ones of 32 x 32.

    Returns:
        The subject as it was made, or that of a module: `subject_of_model` of a Neural ODE of ours, `subject_of_torchdiffeq`
        of one that calls torchdiffeq, of any other its logits alone.

    Raises:
        DataError: If the file is missing or cannot be run.
        InputError: If the name is missing, or means no model, or one that cannot be attacked.
    """
    file, _, name = asked.rpartition(":")
    if not file or not name.isidentifier():
        raise InputError(f"{asked!r} names no model. Write a file and a name in it, as in path/to/model.py:net.")
    if not Path(file).is_file():
        raise DataError(f"There is no file {file}, seen from {Path.cwd()}. Write path/to/model.py:net.")
    folder = str(Path(file).resolve().parent)
    sys.path.insert(0, folder)
    try:
        found = _made(asked, _attribute(_run(Path(file)), name, file))
        return found if isinstance(found, Subject) else _subject_of_users(asked, found, images)
    finally:
        sys.path.remove(folder)


def _subject_of_users(asked: str, model: nn.Module, images: Images | None) -> Subject:
    model = model.eval().requires_grad_(False)
    model, images = (model, _grey(model)) if images is None else (model.to(images.device), images)
    solves = _seen(asked, model, images)
    if isinstance(model, NeuralODEClassifier):
        return subject_of_model(model)
    return _subject_of_solves(model, solves, images) if solves else Subject(model, module=model)


def _run(path: Path) -> ModuleType:
    name = f"{path.stem}-{uuid4().hex}"  # of its own: it must hide no other module, nor an earlier version of itself
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise DataError(f"{path} is no Python file. Write path/to/model.py:net.")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)  # where a redirect looks for torchdiffeq's names
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        why = f"{type(error).__name__}: {error}"
        raise DataError(f"{path} cannot be run: {why}. Let it define the model, and do no more when imported.") from error
    return module


def _attribute(module: ModuleType, name: str, file: str) -> object:
    names = vars(module)
    if name not in names:
        own = [n for n, v in names.items() if isinstance(v, nn.Module) or getattr(v, "__module__", "") == module.__name__]
        raise InputError(f"{file} has no {name!r}. It has: {', '.join(own) or 'nothing that could be a model'}.")
    return names[name]


def _made(asked: str, found: object) -> nn.Module | Subject:
    if callable(found) and not isinstance(found, nn.Module):
        try:
            found = found()
        except (Exception, SystemExit) as error:
            why = f"{type(error).__name__}: {error}"
            raise InputError(
                f"{asked} makes no model: {why}. It is called without arguments; name one that needs none."
            ) from error
    if not isinstance(found, nn.Module | Subject):
        raise InputError(f"{asked} is a {type(found).__name__}, expected a torch.nn.Module, a Subject, or a function of one.")
    return found
