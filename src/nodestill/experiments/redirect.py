"""A model that calls torchdiffeq, solved by ours instead: `with redirected(change) as solves: logits = model(images)`.

Inside the block torchdiffeq's `odeint` and `odeint_adjoint` are exchanged under every name by which a loaded module holds them.
So anybody's model gets our gradients, counts and statuses, and its code stays as it is. Method, tolerances, times and the
options `step_size`, `first_step` and `max_num_steps` are those of each call. What differs:

- Times are landed on, not interpolated. Steps are chosen alike but not the same, so that results agree to the tolerance.
- rk4 is the classical one, torchdiffeq's is the 3/8 rule: they differ by the error of either. adaptive_heun starts each step
  with f at its own state, torchdiffeq's with f at Euler's guess of it. If `step_size` does not divide the way, all steps are
  made a little smaller instead of the last one alone.
- An image whose solve fails gets the state NaN, and nothing is raised. Without `max_num_steps` the limit is 10,000 steps.
- The arguments of the adjoint solve and the callbacks of f are not heeded; our adjoint has the tolerances of the solve.
- A state in half precision is carried in float32; f still sees its own dtype. An autocast to bfloat16 goes on inside f.
"""

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nodestill.errors import InputError
from nodestill.ode import GradientMode, Method, Precision, Solution, Solver, StepControl, solve
from nodestill.ode.scope import check_leaves
from nodestill.ode.step import Kept

Change = Callable[[Solver], Solver]

_METHODS = {
    "dopri5": Method.DOPRI5,
    "bosh3": Method.BOSH3,
    "adaptive_heun": Method.HEUN_EULER,
    "euler": Method.EULER,
    "midpoint": Method.MIDPOINT,
    "rk4": Method.RK4,
}
_HEEDED = {"step_size", "first_step", "max_num_steps"}
_OF_NO_EFFECT = {"dtype", "interp", "perturb"}  # on times, which are float64 here, and on an interpolation that there is not
_STEP_LIMIT = 10_000
_ELSEWHERE = sys.stdlib_module_names | {"torch"}  # packages that hold nothing of torchdiffeq's, and half of all modules
_TIGHTER, _TIGHTEST, _FINER = 100, 1e-6, 4  # below 1e-6 float32 rounds more than an error control can see
_WITHOUT = "Or attack the model without other ways to its gradient: Subject(model)."
_PAST = (
    "torchdiffeq was called past the redirect: by odeint_event or odeint_dense, or by a reference that is no name of a "
    "module, such as self.odeint = odeint. Call odeint by the name it was imported as. " + _WITHOUT
)


class RedirectedSolve(NamedTuple):
    """One call of `odeint` or `odeint_adjoint` under a redirect."""

    asked: Solver  # what the call asked for; its gradient is ADJOINT where that was `odeint_adjoint`
    max_steps: int | None  # the limit that the call set itself, or the number of fixed steps; None: torchdiffeq has no limit
    solution: Solution  # of the changed solver: evaluations of f and status per image, steps, error estimate


@contextmanager
def redirected(change: Change = lambda solver: solver) -> Iterator[list[RedirectedSolve]]:
    """Solve by ours what code in this block asks torchdiffeq to solve.

    Steps are shared by the batch, as torchdiffeq's are, and f is called with one time for all of it. If `change` asks for
    `StepControl.PER_IMAGE`, f gets t of shape (batch, 1, ..., 1) and must broadcast it. Blocks may be nested: the inner one
    holds. They change what modules hold, so no other thread should call torchdiffeq meanwhile.

    Args:
        change: From the solver that a call asks for to the one that is used.

    Yields:
        One entry per call made in the block, in order.

    Raises:
        InputError: If torchdiffeq cannot be imported. In a call: if it asks for what we cannot do, or goes past the redirect.
            In a backward pass: if f reads a tensor whose gradient would be lost.
    """
    solves: list[RedirectedSolve] = []
    held, ours = _held(), _stand_ins(change, solves)
    _exchange(held, ours)
    try:
        yield solves
    finally:
        _exchange(ours, held)  # by another search: a module that was imported in the block holds ours too


def exactly(solver: Solver) -> Solver:
    """Return a solver with the gradient of the steps that it takes: RECOMPUTE."""
    return replace(solver, gradient=GradientMode.RECOMPUTE)


def by_adjoint(solver: Solver) -> Solver:
    """Return a solver with the gradient of the adjoint equation, and tolerances that can be met on the way back: >= 1e-6."""
    rtol, atol = max(solver.rtol, _TIGHTEST), max(solver.atol, _TIGHTEST)
    return replace(solver, gradient=GradientMode.ADJOINT, rtol=rtol, atol=atol)


def tightened(solver: Solver) -> Solver:
    """Return a solver with a hundredth of the tolerances, down to 1e-6, or four times the steps, and an exact gradient."""
    if solver.steps is not None:
        return replace(exactly(solver), steps=_FINER * solver.steps)
    rtol, atol = (min(tolerance, max(tolerance / _TIGHTER, _TIGHTEST)) for tolerance in (solver.rtol, solver.atol))
    return replace(exactly(solver), rtol=rtol, atol=atol, max_steps=10 * solver.max_steps)


def in_few_steps(solver: Solver, steps: int) -> Solver:
    """Return rk4 with so many equal steps, and an exact gradient."""
    return replace(exactly(solver), method=Method.RK4, steps=steps)


def _held() -> list[Callable]:
    """Return what torchdiffeq's names hold now: its own functions, or the stand-ins of a block around this one."""
    try:
        import torchdiffeq
        from torchdiffeq._impl import misc
    except ImportError as error:
        raise InputError(f"torchdiffeq cannot be imported: {error}. Calls are redirected from torchdiffeq >= 0.2.4.") from error
    return [torchdiffeq.odeint, torchdiffeq.odeint_adjoint, misc._check_inputs]


def _exchange(old: list[Callable], new: list[Callable]) -> None:
    """Exchange functions under every name by which a loaded module holds them."""
    by_id = {id(a): b for a, b in zip(old, new, strict=True)}
    for place, module in list(sys.modules.items()):
        if place.partition(".")[0] in _ELSEWHERE or not isinstance(module, ModuleType):
            continue
        names = vars(module)
        if by_id.keys().isdisjoint(map(id, list(names.values()))):
            continue  # nearly all of some thousand modules, so this had better be quick
        for name, value in list(names.items()):
            if id(value) in by_id:
                names[name] = by_id[id(value)]


class _Call(NamedTuple):
    """The arguments of one call, as torchdiffeq takes them."""

    func: Any
    y0: Any
    t: Any
    rtol: Any
    atol: Any
    method: str | None
    options: Mapping[str, Any]
    event_fn: Any
    adjoint: bool


def _stand_ins(change: Change, solves: list[RedirectedSolve]) -> list[Callable]:
    """Return what stands in for `odeint`, for `odeint_adjoint`, and for what both call first if they are reached themselves."""

    def answer(call: _Call) -> Tensor:
        _check(call)
        asked = _solver(call)
        states, solution = _solved(call, change(asked))
        solves.append(RedirectedSolve(asked, _limit(call, asked), solution))
        return states

    def odeint(func, y0, t, *, rtol=1e-7, atol=1e-9, method=None, options=None, event_fn=None):
        return answer(_Call(func, y0, t, rtol, atol, method, options or {}, event_fn, False))

    def odeint_adjoint(
        func,
        y0,
        t,
        *,
        rtol=1e-7,
        atol=1e-9,
        method=None,
        options=None,
        event_fn=None,
        adjoint_rtol=None,
        adjoint_atol=None,
        adjoint_method=None,
        adjoint_options=None,
        adjoint_params=None,
    ):
        return answer(_Call(func, y0, t, rtol, atol, method, options or {}, event_fn, True))

    def refuse(*_, **__):
        raise InputError(_PAST)

    return [odeint, odeint_adjoint, refuse]


def _check(call: _Call) -> None:
    if call.event_fn is not None:
        raise InputError(f"event_fn cannot be redirected: our solver knows times, not events. Solve to a time t1. {_WITHOUT}")
    if not isinstance(call.y0, Tensor) or not call.y0.is_floating_point():
        kind = call.y0.dtype if isinstance(call.y0, Tensor) else type(call.y0).__name__
        raise InputError(f"y0 must be one tensor of real numbers, got {kind}. Stack the parts along one dimension. {_WITHOUT}")
    if call.t.dim() != 1 or len(call.t) < 2:
        raise InputError(
            f"t must hold at least two times in one dimension, got shape {tuple(call.t.shape)}. Pass start and end."
        )
    if call.t.requires_grad and torch.is_grad_enabled():
        raise InputError(
            "t requires a gradient, and no gradient flows to times here. To attack a model, freeze its parameters: "
            f"model.requires_grad_(False). If its times depend on the images: {_WITHOUT}"
        )


def _solver(call: _Call) -> Solver:
    """Return the solver that a call asks for."""
    name, options = call.method or "dopri5", call.options
    if name not in _METHODS:
        raise InputError(f"method {name!r} cannot be redirected. These can: {', '.join(_METHODS)}. {_WITHOUT}")
    unknown = sorted(set(options) - _HEEDED - _OF_NO_EFFECT)
    if unknown:
        raise InputError(f"option {unknown[0]!r} cannot be redirected. These can: {', '.join(sorted(_HEEDED))}. {_WITHOUT}")
    method, first = _METHODS[name], options.get("first_step")
    return Solver(
        method=method,
        rtol=_number(call.rtol, "rtol"),
        atol=_number(call.atol, "atol"),
        max_steps=int(options.get("max_num_steps", _STEP_LIMIT)),
        steps=None if method.is_adaptive else _steps(call.t, options.get("step_size")),
        first_step=None if first is None else _number(first, "first_step"),
        step_control=StepControl.SHARED,
        gradient=GradientMode.ADJOINT if call.adjoint else GradientMode.RECOMPUTE,
        precision=_precision(call.y0.device.type),
    )


def _limit(call: _Call, asked: Solver) -> int | None:
    return int(call.options["max_num_steps"]) if "max_num_steps" in call.options else asked.steps


def _number(value: Any, name: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} must be one number for the whole state, got a {type(value).__name__}. {_WITHOUT}") from error


def _steps(t: Tensor, step_size: Any) -> int:
    """Return the number of steps of a fixed-step method; without a size, one from time to time."""
    if step_size is None:
        return 1
    ratio = abs(float(t[-1] - t[0])) / _number(step_size, "step_size")
    return max(1, math.ceil(ratio - 1e-4))  # the quotient of two rounded numbers may lie just above an integer


def _precision(device_type: str) -> Precision:
    low = torch.is_autocast_enabled(device_type) and torch.get_autocast_dtype(device_type) is torch.bfloat16
    return Precision.BFLOAT16 if low else Precision.FLOAT32


def _solved(call: _Call, solver: Solver) -> tuple[Tensor, Solution]:
    """Return the states at all times, shape (times, batch, ...), and the solution they are from."""
    start, *times = call.t.tolist()
    y0 = call.y0 if call.y0.dtype == torch.float64 else call.y0.float()
    between = times if len(times) > 1 else ()
    f = _AsCalled(call.func, call.y0.dtype, solver)
    solution = solve(f, y0, start, times[-1], solver, times=between, raises=False)
    states = solution.at_times if between else solution.y1[None]
    return torch.cat([call.y0[None], states.to(call.y0.dtype)]), solution


class _AsCalled(nn.Module):
    """Any right-hand side, called as torchdiffeq calls it: with one time for the whole batch, where it has but one."""

    def __init__(self, func: Any, dtype: torch.dtype, solver: Solver) -> None:
        super().__init__()
        self.func, self.dtype = func, dtype
        self.own_times = solver.method.is_adaptive and solver.step_control is StepControl.PER_IMAGE

    def forward(self, t: Tensor, y: Tensor) -> Any:
        """Return f(t, y), and refuse an f whose gradient would be incomplete."""
        time = t if self.own_times else t.flatten()[0]
        slope = self.func(time.to(self.dtype), y.to(self.dtype))
        if torch.is_grad_enabled() and isinstance(slope, Tensor):
            self._require_whole(y, slope)
        return slope

    def _require_whole(self, y: Tensor, slope: Tensor) -> None:
        try:
            check_leaves(list(self.parameters()), Kept(y, slope))
        except InputError as error:
            raise InputError(
                f"{error} To attack a model, freeze its parameters: model.requires_grad_(False). What f reads of the images "
                f"besides its state must become part of that state. {_WITHOUT}"
            ) from error
