"""`odeint` and `odeint_adjoint` with torchdiffeq's argument names and shapes, for users who migrate.

What differs, on purpose:

- Steps are controlled per batch element (dimension 0 of y0), so an element's result does not depend on its neighbours. Pass
  `options={"step_control": "shared"}` for one step size over the batch.
- f is called with t of shape (batch, 1, ..., 1), not as a scalar. It broadcasts against y; a f that ignores t needs no change.
- Asked-for times are landed on instead of interpolated, so more of them cost more steps.
- `odeint` differentiates the steps that were taken, with their sizes held constant, and keeps one state a step instead of the
  graph. f must be a `torch.nn.Module`: gradients flow to its parameters and to y0. A t that requires a gradient is refused; if
  f closes over another tensor that requires one, the backward pass refuses.
- A failed element raises `SolveError` instead of going on, and there is a step limit.
- y0 is one tensor with a batch dimension. Tuples, events, per-parameter tolerances and arguments of the adjoint solve do not
  exist here: those that torchdiffeq takes are taken if they are None, and refused otherwise. The options are those named below,
  and one that the method would ignore is refused instead of warned of.
- The methods are those of `Method`. rk4 is the classical one; torchdiffeq's is the 3/8 rule. heun-euler is the method that
  torchdiffeq's adaptive_heun is made after. Without `step_size` a fixed-step method takes one step from time to time, as there.
  With one, it takes as many steps as torchdiffeq, none larger than asked for; but if the size does not divide the way, all
  steps are made equal instead of the last one smaller, and those between two times are equal and rounded up in number.
"""

import math
from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nodestill.errors import InputError, SolveError
from nodestill.ode.solve import solve
from nodestill.ode.solver import GradientMode, Method, Solver, StepControl

_Choice = TypeVar("_Choice", bound=Enum)
_MOST_STEPS = 10**9  # an option that asks for more is a slip
_OF_ADAPTIVE, _OF_FIXED = {"max_num_steps", "first_step", "step_control"}, {"step_size", "step_control"}


def odeint(
    func: nn.Module,
    y0: Float[Tensor, "batch *state"],
    t: Float[Tensor, " times"],
    *,
    rtol: float | Tensor = 1e-7,
    atol: float | Tensor = 1e-9,
    method: str | None = None,
    options: Mapping[str, object] | None = None,
    event_fn: object = None,
) -> Float[Tensor, "times batch *state"]:
    """Solve dy/dt = func(t, y), y(t[0]) = y0, and return y at all times t; see the module for what differs.

    Args:
        func: f(t, y) with t of shape (batch, 1, ..., 1), returning the shape of y.
        y0: Initial states.
        t: Increasing or decreasing times, at least two; the first belongs to y0. No gradient flows to them.
        rtol: Relative tolerance, torchdiffeq's default.
        atol: Absolute tolerance, torchdiffeq's default.
        method: Value of a `Method`: dopri5 (also if None), bosh3, rk4, euler, midpoint, ...
        options: `max_num_steps`, `first_step` (adaptive methods), `step_size` (fixed-step methods), `step_control` (per_image
            or shared).
        event_fn: torchdiffeq's; None alone is taken.

    Returns:
        States at t, the first being y0: shape (times, batch, ...).

    Raises:
        InputError: If t, the method or an option cannot be used, or t requires a gradient.
        SolveError: If an element did not arrive.
    """
    _refuse({"event_fn": event_fn})
    return _solved(func, y0, t, _solver(t, rtol, atol, method or "dopri5", options or {}, GradientMode.RECOMPUTE))


def odeint_adjoint(
    func: nn.Module,
    y0: Float[Tensor, "batch *state"],
    t: Float[Tensor, " times"],
    *,
    rtol: float | Tensor = 1e-7,
    atol: float | Tensor = 1e-9,
    method: str | None = None,
    options: Mapping[str, object] | None = None,
    event_fn: object = None,
    adjoint_rtol: object = None,
    adjoint_atol: object = None,
    adjoint_method: object = None,
    adjoint_options: object = None,
    adjoint_params: object = None,
) -> Float[Tensor, "times batch *state"]:
    """Solve as `odeint`, with the gradient of the continuous adjoint equation: constant memory, a different gradient.

    Arguments, result and errors are those of `odeint`. The way back has the method, tolerances and options of the way there,
    and differentiates by all parameters of f, so that of torchdiffeq's `adjoint_...` None alone is taken. The method reversible
    has a gradient of its own, here as there.
    """
    theirs = {"adjoint_rtol": adjoint_rtol, "adjoint_atol": adjoint_atol, "adjoint_method": adjoint_method}
    _refuse({"event_fn": event_fn, **theirs, "adjoint_options": adjoint_options, "adjoint_params": adjoint_params})
    return _solved(func, y0, t, _solver(t, rtol, atol, method or "dopri5", options or {}, GradientMode.ADJOINT))


def _refuse(arguments: Mapping[str, object]) -> None:
    """Refuse what torchdiffeq takes and we do not have, unless it is None as by default."""
    given = [name for name, value in arguments.items() if value is not None]
    if "event_fn" in given:
        raise InputError("event_fn must be None: a solve here knows times, not events. Solve to a time t[-1].")
    if given:
        raise InputError(
            f"{given[0]} must be None: the way back has the settings of the way there, and the parameters of f. "
            "Leave it out, and set rtol, atol, method and options for both; freeze the parameters that need no gradient."
        )


def _solved(func: nn.Module, y0: Tensor, t: Tensor, solver: Solver) -> Tensor:
    start, *between, end = t.tolist()
    try:
        solution = solve(func, y0, start, end, solver, times=between)
    except SolveError as error:
        raise SolveError(str(error).replace("max_steps", "options['max_num_steps']").replace("t1", "t[-1]")) from None
    return torch.cat([y0[None], solution.at_times, solution.y1[None]])


def _solver(t: Tensor, rtol: Any, atol: Any, method: str, options: Mapping[str, object], gradient: GradientMode) -> Solver:
    if not isinstance(t, Tensor) or t.dim() != 1 or len(t) < 2:
        got = f"shape {tuple(t.shape)}" if isinstance(t, Tensor) else repr(t)
        raise InputError(f"t must be a tensor of at least two times in one dimension, got {got}. Pass start and end.")
    ahead = t.diff()
    if not (t.isfinite().all() and ((ahead > 0).all() or (ahead < 0).all())):
        raise InputError(f"t must be finite and strictly increasing or decreasing, got {t}. Sort it, without repetitions.")
    if t.requires_grad and torch.is_grad_enabled():
        raise InputError("t requires a gradient, and no gradient flows to times here. Pass t.detach().")
    chosen = _member(Method, method, "method")
    _check_options(chosen, set(options))
    return Solver(
        method=chosen,
        rtol=number(rtol, "rtol"),
        atol=number(atol, "atol"),
        max_steps=_limit(options.get("max_num_steps", 10_000)),
        steps=None if chosen.is_adaptive else fixed_steps(t, options.get("step_size")),
        first_step=None if options.get("first_step") is None else number(options["first_step"], "first_step"),
        step_control=_member(StepControl, options.get("step_control", "per_image"), "step_control"),
        gradient=gradient,
    )


def _member(kind: type[_Choice], value: object, what: str) -> _Choice:
    known = {member.value: member for member in kind}
    if not isinstance(value, str) or value not in known:
        raise InputError(f"Unknown {what} {value!r}. There are: {', '.join(known)}.")
    return known[value]


def _check_options(method: Method, given: set[str]) -> None:
    unknown = sorted(given - _OF_ADAPTIVE - _OF_FIXED)
    if unknown:
        raise InputError(f"Unknown option {unknown[0]!r}. There are: {', '.join(sorted(_OF_ADAPTIVE | _OF_FIXED))}.")
    ignored = sorted(given - (_OF_ADAPTIVE if method.is_adaptive else _OF_FIXED))
    if ignored:
        kind = "chooses its own steps" if method.is_adaptive else "takes equal steps"
        raise InputError(f"Option {ignored[0]!r} has no effect: {method.value} {kind}. Leave it out, or choose another method.")


def _limit(value: object) -> int:
    found = number(value, "max_num_steps")
    if not 1 <= found < math.inf:
        raise InputError(f"max_num_steps must be a whole number >= 1, got {value!r}. Leave it out for 10,000.")
    return int(found)


def fixed_steps(t: Tensor, step_size: Any) -> int:
    """Return the number of steps of a fixed-step method, none larger than asked for; without a size, one for each stretch."""
    if step_size is None:
        return 1
    size, way = number(step_size, "step_size"), abs(float(t[-1]) - float(t[0]))
    if not 0 < size < math.inf or way / size > _MOST_STEPS:
        raise InputError(
            f"step_size must be positive and finite, and a way of {way:g} take no more than {_MOST_STEPS:,} steps of it, got "
            f"{size:g}. Leave it out for a step a stretch."
        )
    return max(1, math.ceil(way / size * (1 - 1e-6)))  # the quotient of rounded numbers may lie just above a whole one


def number(value: Any, name: str) -> float:
    """Return an option as a plain number, whatever kind of number it is.

    Raises:
        InputError: If it is none, or more than one.
    """
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"{name} must be one number, got {value!r}. Pass a float.") from None
