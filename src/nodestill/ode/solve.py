"""`solve`: an initial value problem y' = f(t, y), y(t0) = y0, for a batch of image-sized states.

It checks what it is given, gives or chooses steps (`travel.py`), connects the result to autograd (`gradients.py`) and reports
what was done. It does not interpolate (asked-for times are landed on) and has no implicit methods.
"""

import math
from collections.abc import Iterable, Sequence
from numbers import Real

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nodestill.errors import InputError
from nodestill.ode.field import Field, PerImage
from nodestill.ode.gradients import differentiable
from nodestill.ode.progress import Problem, Progress, Sizes
from nodestill.ode.solver import Method, Solution, Solver, StepRecord, no_times
from nodestill.ode.tableaus import tableau
from nodestill.precision import Precision


def solve(
    dynamics: nn.Module,
    y0: Float[Tensor, "batch *state"],
    t0: float,
    t1: float,
    solver: Solver,
    *,
    times: Sequence[float] = (),
    replay: StepRecord | None = None,
    raises: bool = True,
) -> Solution:
    """Solve y' = f(t, y) from y(t0) = y0 to t1, for every element of the batch on its own.

    Step sizes are constants for differentiation: the gradient is that of the steps that were taken, exactly. With
    `StepControl.PER_IMAGE` neither result nor gradient of an image depends on the rest of the batch, up to the rounding of
    kernels that change with the batch size.

    Args:
        dynamics: f, called as f(t, y) with t of shape (batch, 1, ..., 1); returns the shape of y. It must be deterministic,
            and treat each element of the batch on its own. Gradients flow to its parameters.
        y0: Initial states, float32 or float64, with a dimension besides the batch; finite.
        t0: Start of the time interval. No gradient flows to times: a tensor that requires one is refused.
        t1: End of the time interval; may lie before t0. Both are finite, and different.
        solver: Method, tolerances, limits, gradient mode, precision of f.
        times: Times to report the state at, strictly between t0 and t1 or equal to t1, in the order of travel.
        replay: Steps of an earlier solve over the same interval, to be taken again without error control.
        raises: Whether a failed image raises. If not, its status says so and its state is not a number. So does one that is
            lost on the way back, where a reversible solve misses its start or that of ADJOINT does not arrive: if it does not
            raise, its gradient is not a number, it has no share in that of the weights, and its neighbours keep theirs.

    Returns:
        The solution: end state, states at `times`, and per image evaluations, steps, status and error estimate.

    Raises:
        InputError: If an argument is of another kind or shape than said above, y0 of another dtype than the solver's precision
            needs, a time requires a gradient, `times` are out of order or asked of REVERSIBLE, `replay` does not fit the batch,
            or f does not return the shape of y or changes t or y in place. In the backward pass: if f reads a tensor whose
            gradient would be lost, if its weights are others by now, or if a second derivative is asked for.
        SolveError: If an image did not arrive and `raises`; in the backward pass, if one was lost there.

    Source:
        Hairer, Norsett, Wanner 1993, Solving ODEs I, section II.4. Differs: error control per batch element; the last two
        steps before a target are made equal; the target is landed on, not interpolated.
    """
    _check_kinds(dynamics, y0, solver, replay)
    t0, t1, times = _checked(y0, t0, t1, times, solver, replay)
    sign, targets = math.copysign(1.0, t1 - t0), _targets(t0, t1, times)
    field = Field(dynamics, solver.precision, solver.compiled and solver.method is not Method.REVERSIBLE)
    problem = Problem(field, tableau(solver.method), solver, t0, sign, targets, raises)
    progress, error, ends = differentiable(problem, _sizes(problem, replay, y0), _dense(y0))
    solution = _solution(progress, error, ends, y0, times)
    return solution.require_success(solver, t1, given=replay is not None) if raises else solution


def _solution(progress: Progress, error: Tensor, ends: tuple[Tensor, ...], y0: Tensor, times: Sequence[float]) -> Solution:
    at_times = torch.stack(ends[: len(times)]) if times else no_times(y0)
    record, missed = _record(progress, y0), progress.reconstruction_error
    return Solution(ends[-1], progress.stats(), at_times, progress.status, record, error, missed)


def _checked(
    y0: Tensor, t0: object, t1: object, times: object, solver: Solver, replay: StepRecord | None
) -> tuple[float, float, tuple[float, ...]]:
    """Return the start, the end and the times between as plain numbers, if all that is asked for can be meant."""
    t0, t1, times = _time("t0", t0), _time("t1", t1), _times(times)
    _check_state(y0, solver)
    check_interval(t0, t1)
    _check_times(t0, t1, times)
    _check_record(replay, y0, times)
    if times and solver.method is Method.REVERSIBLE:
        raise InputError(
            f"A reversible solve reports no times between, got {list(times)}. Solve each stretch, or take another method."
        )
    return t0, t1, times


def _check_kinds(dynamics: object, y0: object, solver: object, replay: object) -> None:
    for name, value, kind, wanted, remedy in (
        ("f", dynamics, nn.Module, "torch.nn.Module", "Put it into the forward of a module."),
        ("y0", y0, Tensor, "Tensor", "Stack several parts of a state along one dimension."),
        ("solver", solver, Solver, "Solver", "Write Solver(method=Method.DOPRI5), for example."),
        ("replay", replay, StepRecord | None, "StepRecord", "Pass the steps of an earlier solution, solution.steps."),
    ):
        if not isinstance(value, kind):
            raise InputError(f"{name} must be a {wanted}, got {type(value).__name__}. {remedy}")


def _times(times: object) -> tuple[float, ...]:
    times = [times] if isinstance(times, Tensor) and times.dim() == 0 else times
    if isinstance(times, str) or not isinstance(times, Iterable):
        raise InputError(f"times must be a sequence of numbers, got {times!r}. Write times=(0.5,) for a single one.")
    return tuple(_time("times", t) for t in times)


def _time(name: str, value: object) -> float:
    """Return a time as a plain number: no gradient flows to it."""
    if isinstance(value, Tensor) and value.requires_grad and torch.is_grad_enabled():
        raise InputError(f"{name} requires a gradient, and no gradient flows to times here. Pass {name}.detach().")
    if not (isinstance(value, Real) or (isinstance(value, Tensor) and value.numel() == 1)):
        raise InputError(f"{name} must be given in numbers, got {value!r}. Pass floats.")
    return float(value)


def _check_state(y0: Tensor, solver: Solver) -> None:
    if y0.dtype not in (torch.float32, torch.float64) or y0.dim() < 2:
        raise InputError(
            f"y0 must be float32 or float64 with a batch dimension and at least one more, got {y0.dtype} of shape "
            f"{tuple(y0.shape)}. Convert it with .float(), and give a single state a batch of one."
        )
    if y0.dtype == torch.float64 and solver.precision is Precision.BFLOAT16:
        raise InputError(
            "precision BFLOAT16 needs y0 in float32, got float64, which autocast leaves as it is. "
            "Pass y0.float(), or Precision.FLOAT32, which computes in the dtype of y0."
        )


def _check_times(t0: float, t1: float, times: Sequence[float]) -> None:
    ahead = [abs(t - t0) if (t - t0) * (t1 - t0) > 0 else -1.0 for t in times]
    if any(b <= a for a, b in zip([0.0, *ahead], [*ahead, math.inf])) or any(a > abs(t1 - t0) for a in ahead):
        raise InputError(f"times must lie after t0 = {t0:g}, up to t1 = {t1:g}, in the order of travel; got {list(times)}.")


def check_interval(t0: float, t1: float) -> None:
    """Refuse an interval that cannot be crossed.

    Raises:
        InputError: If an end is not finite, or both are the same.
    """
    if not (math.isfinite(t0) and math.isfinite(t1) and t0 != t1):
        raise InputError(f"t0 and t1 must be finite and different, got {t0} and {t1}. Use y0 itself if they are equal.")


def _check_record(replay: StepRecord | None, y0: Tensor, times: Sequence[float]) -> None:
    if replay is None:
        return
    images = len(y0)
    if replay.sizes.dim() != 2 or replay.sizes.shape[1] != images or times:
        raise InputError(
            f"replay must hold the steps of {images} images in shape (steps, {images}) and no times, got shape "
            f"{tuple(replay.sizes.shape)} and {len(times)} times. Record a solve of this batch, without times."
        )
    if replay.sizes.dtype != torch.float64:
        raise InputError(
            f"replay must hold sizes in torch.float64, got {replay.sizes.dtype}. Pass them as they were recorded: rounded to "
            "fewer digits they no longer add up to t1 - t0."
        )
    if replay.sizes.device != y0.device:
        raise InputError(f"replay must hold sizes on {y0.device}, where y0 is, got {replay.sizes.device}. Move them there.")


def _targets(t0: float, t1: float, times: Sequence[float]) -> tuple[float, ...]:
    distances = [abs(t - t0) for t in (*times, t1)]
    return tuple(distances[:-1] if len(distances) > 1 and distances[-2] == distances[-1] else distances)


def _sizes(problem: Problem, replay: StepRecord | None, y0: Tensor) -> Sizes | None:
    """Return the steps to take where they are given; None where the solve chooses them."""
    if replay is not None:
        return [list(_without_gaps(replay.sizes))]
    return None if problem.solver.method.is_adaptive else _equal_steps(problem, y0)


def _equal_steps(problem: Problem, y0: Tensor) -> list[list[PerImage]]:
    """Return the sizes of a fixed-step method: `steps` over the whole way, rounded up within each stretch of it."""
    sizes, before = [], 0.0
    for target in problem.targets:
        count = max(1, math.ceil((problem.solver.steps or 1) * (target - before) / problem.targets[-1] - 1e-6))
        size = torch.full((len(y0),), (target - before) / count, dtype=torch.float64, device=y0.device)
        sizes.append([size] * count)
        before = target
    return sizes


def _record(progress: Progress, y0: Tensor) -> StepRecord:
    """Return each image's accepted sizes in a row of its own per step, without the gaps that rejections left."""
    if not progress.sizes:
        return StepRecord(torch.zeros((0, len(y0)), dtype=torch.float64, device=y0.device))
    sizes = torch.stack(progress.sizes)
    if progress.attempts:  # only an adaptive solve leaves gaps
        sizes = _without_gaps(sizes)[: int((sizes > 0).sum(0).max())]
    return StepRecord(sizes)


def _without_gaps(sizes: Tensor) -> Tensor:
    """Return each image's steps one after another, and then its zeros: who has arrived does not set out again."""
    return sizes.gather(0, (sizes == 0).to(torch.int8).argsort(dim=0, stable=True))


def _dense(y0: Tensor) -> Tensor:
    """Return y0 so that its elements fill their memory without gap or overlap, in the layout it has if possible."""
    return y0 if torch.empty_like(y0).stride() == y0.stride() else y0.contiguous()
