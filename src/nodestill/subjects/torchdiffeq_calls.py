"""One call of torchdiffeq's `odeint` or `odeint_adjoint`: what it asks for, and its answer by our solver. See `redirect`."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nodestill.errors import InputError
from nodestill.ode import GradientMode, Method, Precision, Solution, Solver, StepControl, solve
from nodestill.ode.scope import check_leaves
from nodestill.ode.step import Kept
from nodestill.ode.torchdiffeq_style import fixed_steps

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
WITHOUT = "Or attack the model without other ways to its gradient: Subject(model)."


class Call(NamedTuple):
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


def check(call: Call) -> None:
    """Refuse what our solver cannot do; raises `InputError`."""
    if call.event_fn is not None:
        raise InputError(f"event_fn cannot be redirected: our solver knows times, not events. Solve to a time t1. {WITHOUT}")
    if not isinstance(call.y0, Tensor) or not call.y0.is_floating_point():
        kind = call.y0.dtype if isinstance(call.y0, Tensor) else type(call.y0).__name__
        raise InputError(f"y0 must be one tensor of real numbers, got {kind}. Stack the parts along one dimension. {WITHOUT}")
    if call.t.dim() != 1 or len(call.t) < 2:
        raise InputError(
            f"t must hold at least two times in one dimension, got shape {tuple(call.t.shape)}. Pass start and end."
        )
    if call.t.requires_grad and torch.is_grad_enabled():
        raise InputError(
            "t requires a gradient, and no gradient flows to times here. To attack a model, freeze its parameters: "
            f"model.requires_grad_(False). If its times depend on the images: {WITHOUT}"
        )


def solver_of(call: Call) -> Solver:
    """Return the solver that a call asks for; raises `InputError` if there is none."""
    name, options = call.method or "dopri5", call.options
    if name not in _METHODS:
        raise InputError(f"method {name!r} cannot be redirected. These can: {', '.join(_METHODS)}. {WITHOUT}")
    unknown = sorted(set(options) - _HEEDED - _OF_NO_EFFECT)
    if unknown:
        raise InputError(f"option {unknown[0]!r} cannot be redirected. These can: {', '.join(sorted(_HEEDED))}. {WITHOUT}")
    method, first = _METHODS[name], options.get("first_step")
    return Solver(
        method=method,
        rtol=_number(call.rtol, "rtol"),
        atol=_number(call.atol, "atol"),
        max_steps=int(options.get("max_num_steps", _STEP_LIMIT)),
        steps=None if method.is_adaptive else fixed_steps(call.t, options.get("step_size")),
        first_step=None if first is None else _number(first, "first_step"),
        step_control=StepControl.SHARED,
        gradient=GradientMode.ADJOINT if call.adjoint else GradientMode.RECOMPUTE,
        precision=_precision(call.y0),
    )


def limit_of(call: Call, asked: Solver) -> int | None:
    """Return the limit on steps that a call sets itself, or its number of fixed steps."""
    return int(call.options["max_num_steps"]) if "max_num_steps" in call.options else asked.steps


def _number(value: Any, name: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} must be one number for the whole state, got a {type(value).__name__}. {WITHOUT}") from error


def _precision(y0: Tensor) -> Precision:
    kind = y0.device.type
    low = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) is torch.bfloat16
    low = low and y0.dtype != torch.float64  # which autocast leaves alone
    return Precision.BFLOAT16 if low else Precision.FLOAT32


def solved(call: Call, solver: Solver) -> tuple[Tensor, Solution]:
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
                f"besides its state must become part of that state. {WITHOUT}"
            ) from error
