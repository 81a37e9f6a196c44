"""`odeint` and `odeint_adjoint` with torchdiffeq's argument names and shapes, for users who migrate.

What differs, on purpose:

- Steps are controlled per batch element (dimension 0 of y0), so an element's result does not depend on its neighbours. Pass
  `options={"step_control": "shared"}` for one step size over the batch.
- f is called with t of shape (batch, 1, ..., 1), not as a scalar. It broadcasts against y; a f that ignores t needs no change.
- Asked-for times are landed on instead of interpolated, so more of them cost more steps.
- `odeint` differentiates the steps that were taken, with their sizes held constant, and keeps one state a step instead of the
  graph. f must be a `torch.nn.Module`: gradients flow to its parameters and to y0, not to t. If f closes over another tensor
  that requires a gradient, the backward pass refuses.
- A failed element raises `SolveError` instead of going on, and there is a step limit.
- y0 is one tensor with a batch dimension. Tuples, events, per-parameter tolerances and arguments of the adjoint solve do not
  exist here. Tolerances are keyword arguments. The options are those named below.
- The methods are those of `Method`. rk4 is the classical one; torchdiffeq's is the 3/8 rule. heun-euler is the method that
  torchdiffeq's adaptive_heun is made after. Without `step_size` a fixed-step method takes one step from time to time, as there.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nodestill.errors import InputError
from nodestill.ode.solve import solve
from nodestill.ode.solver import GradientMode, Method, Solver, StepControl

_Choice = TypeVar("_Choice", bound=Enum)
_OPTIONS = {"max_num_steps", "first_step", "step_size", "step_control"}


def odeint(
    func: nn.Module,
    y0: Float[Tensor, "batch *state"],
    t: Float[Tensor, " times"],
    *,
    rtol: float = 1e-7,
    atol: float = 1e-9,
    method: str = "dopri5",
    options: Mapping[str, object] | None = None,
) -> Float[Tensor, "times batch *state"]:
    """Solve dy/dt = func(t, y), y(t[0]) = y0, and return y at all times t; see the module for what differs.

    Args:
        func: f(t, y) with t of shape (batch, 1, ..., 1), returning the shape of y.
        y0: Initial states.
        t: Increasing or decreasing times, at least two; the first belongs to y0.
        rtol: Relative tolerance, torchdiffeq's default.
        atol: Absolute tolerance, torchdiffeq's default.
        method: Value of a `Method`: dopri5, bosh3, rk4, euler, midpoint, ...
        options: `max_num_steps`, `first_step`, `step_size` (fixed-step methods), `step_control` (per_image or shared).

    Returns:
        States at t, the first being y0: shape (times, batch, ...).

    Raises:
        InputError: If t, the method or an option cannot be used.
        SolveError: If an element did not arrive.
    """
    return _solved(func, y0, t, _solver(t, rtol, atol, method, options or {}, GradientMode.RECOMPUTE))


def odeint_adjoint(
    func: nn.Module,
    y0: Float[Tensor, "batch *state"],
    t: Float[Tensor, " times"],
    *,
    rtol: float = 1e-7,
    atol: float = 1e-9,
    method: str = "dopri5",
    options: Mapping[str, object] | None = None,
) -> Float[Tensor, "times batch *state"]:
    """Solve as `odeint`, with the gradient of the continuous adjoint equation: constant memory, a different gradient.

    Arguments, result and errors are those of `odeint`.
    """
    return _solved(func, y0, t, _solver(t, rtol, atol, method, options or {}, GradientMode.ADJOINT))


def _solved(func: nn.Module, y0: Tensor, t: Tensor, solver: Solver) -> Tensor:
    start, *times = t.tolist()
    solution = solve(func, y0, start, times[-1], solver, times=times)
    return torch.cat([y0[None], solution.at_times])


def _solver(t: Tensor, rtol: float, atol: float, method: str, options: Mapping[str, object], gradient: GradientMode) -> Solver:
    if t.dim() != 1 or len(t) < 2:
        raise InputError(f"t must hold at least two times in one dimension, got shape {tuple(t.shape)}. Pass start and end.")
    unknown = set(options) - _OPTIONS
    if unknown:
        raise InputError(f"Unknown option {sorted(unknown)[0]!r}. There are: {', '.join(sorted(_OPTIONS))}.")
    chosen = _member(Method, method, "method")
    return Solver(
        method=chosen,
        rtol=rtol,
        atol=atol,
        max_steps=int(options.get("max_num_steps", 10_000)),
        steps=None if chosen.is_adaptive else _steps(t, options.get("step_size")),
        first_step=options.get("first_step"),
        step_control=_member(StepControl, options.get("step_control", "per_image"), "step_control"),
        gradient=gradient,
    )


def _member(kind: type[_Choice], value: object, what: str) -> _Choice:
    known = {member.value: member for member in kind}
    if value not in known:
        raise InputError(f"Unknown {what} {value!r}. There are: {', '.join(known)}.")
    return known[value]


def _steps(t: Tensor, step_size: Any) -> int:
    """Return the number of steps of a fixed-step method, of the size given; without one, one for each stretch between times."""
    if step_size is None:
        return 1
    if not step_size > 0:
        raise InputError(f"step_size must be positive, got {step_size}. Leave it out for a step a stretch.")
    return max(1, round(abs(float(t[-1] - t[0])) / step_size))
