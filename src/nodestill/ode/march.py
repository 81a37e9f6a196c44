"""The loops of a solve: adaptive (`march`) and along given step sizes (`follow`). No automatic differentiation here.

Images are on their way independently: each has its own time, step size and verdict, they only share the calls of f. One that
has arrived leaves the batch, so nobody pays for the slowest neighbour. `keep` says what a later backward pass will want.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from nodestill.ode.solver import GradientMode, Solver, SolveStats, Status
from nodestill.ode.step import (
    Field,
    Kept,
    PerImage,
    Trial,
    error_ratio,
    evaluate,
    like_state,
    next_size,
    over_batch,
    probe_first_step,
    rms,
    take_step,
)
from nodestill.ode.tableaus import Tableau

_SMALLEST_STEP = 1e-13  # of the distance to go: below it, adding a step to float64 time loses the step


class Problem(NamedTuple):
    """An initial value problem with everything that decides how it is solved. Times are counted from t0, upwards."""

    field: Field
    tableau: Tableau
    solver: Solver
    t0: float
    sign: float  # -1 to solve backwards in time
    targets: tuple[float, ...]  # distances from t0 to land on, increasing; the last one is the end

    def time(self, travelled: PerImage) -> PerImage:
        """Return the time at a distance from t0."""
        return self.t0 + self.sign * travelled


class Taken(NamedTuple):
    """One accepted step of some images: what is needed to differentiate it."""

    index: Tensor | None  # positions in the batch; None is all of it
    t: PerImage
    h: PerImage  # signed
    y: Tensor  # where the step started
    kept: tuple[Kept, ...]  # the evaluations that the solution needs; those that are missing in front are made again


@dataclass
class Progress:
    """The state of a whole batch between two targets, and what has been counted on the way."""

    y: Tensor
    slope: Tensor
    size: PerImage  # step size to try next
    status: Tensor
    evaluations: Tensor
    rejected: Tensor
    tried: Tensor  # attempted steps of each image, so that a slow neighbour does not use up its limit
    error: PerImage
    attempts: int = 0
    sizes: list[PerImage] = field(default_factory=list)  # one row an attempt
    trace: list[list[Taken]] = field(default_factory=list)  # one list a target
    ends: list[Tensor] = field(default_factory=list)  # the state at each target

    def stats(self) -> SolveStats:
        """Return what each image cost."""
        accepted = torch.stack(self.sizes).gt(0).sum(0) if self.sizes else torch.zeros_like(self.rejected)
        return SolveStats(self.evaluations, accepted, self.rejected)


@dataclass
class _Front:
    """The images that are still on their way to a target."""

    index: Tensor
    travelled: PerImage
    size: PerImage
    y: Tensor
    slope: Tensor
    first: tuple[Kept, ...]  # the evaluation behind `slope`, if it was kept and is of these very images

    def only(self, chosen: Tensor) -> "_Front":
        return _Front(*[part[chosen] for part in (self.index, self.travelled, self.size, self.y, self.slope)], first=())


Sizes = Sequence[Sequence[PerImage]]  # step sizes to take: for each target, one row of the batch after another


def travel(problem: Problem, sizes: Sizes | None, y0: Tensor, keep: GradientMode | None) -> Progress:
    """Solve with step sizes of its own choice, or with those given."""
    return march(problem, y0, keep) if sizes is None else follow(problem, y0, sizes, keep)


def march(problem: Problem, y0: Tensor, keep: GradientMode | None) -> Progress:
    """Solve adaptively from t0 to each target in turn. An image that fails keeps its status and goes no further."""
    progress, first = _start(problem, y0, keep is GradientMode.DIRECT)
    before = 0.0
    for target in problem.targets:
        progress.trace.append([])
        progress.status[(progress.status == Status.DONE) & (progress.tried >= problem.solver.max_steps)] = Status.STEP_LIMIT
        front = _leave(progress, before, first)
        while len(front.index):
            front = _attempt(problem, progress, front, target, keep)
        progress.ends.append(marked(progress))
        before, first = target, ()
    return progress


def _start(problem: Problem, y0: Tensor, keep: bool) -> tuple[Progress, tuple[Kept, ...]]:
    """Evaluate f at the start and choose each image's first step."""
    solver, order = problem.solver, problem.tableau.order
    progress = nowhere(y0)
    t = problem.time(progress.size)
    slope, first = evaluate(problem.field, t, y0, keep)
    progress.slope = slope.to(y0.dtype)
    finite = torch.isfinite(rms(progress.slope)) & torch.isfinite(rms(y0))
    progress.status[~finite] = Status.NON_FINITE
    if solver.first_step is not None:
        progress.size, probes = progress.size + solver.first_step, 0
    else:
        progress.size, probes = probe_first_step(problem.field, t, y0, progress.slope, solver, order, problem.sign), 1
    progress.evaluations += 1 + probes
    return progress, first


def nowhere(y0: Tensor) -> Progress:
    """Return the progress of a batch that has not left its start, all counts zero."""
    count = torch.zeros(len(y0), dtype=torch.int64, device=y0.device)
    zero = torch.zeros(len(y0), dtype=torch.float64, device=y0.device)
    return Progress(y0, y0, zero, *[count.clone() for _ in range(4)], zero.clone())


def _leave(progress: Progress, travelled: float, first: tuple[Kept, ...]) -> _Front:
    everyone = torch.arange(len(progress.y), device=progress.y.device)
    front = _Front(everyone, torch.full_like(progress.size, travelled), progress.size, progress.y, progress.slope, first)
    healthy = progress.status == Status.DONE
    return front if bool(healthy.all()) else front.only(healthy)


def _attempt(problem: Problem, progress: Progress, front: _Front, target: float, keep: GradientMode | None) -> _Front:
    """Try one step of every image on its way; book what was accepted and return those that go on."""
    h = _landing_size(front.size, target - front.travelled)
    t, signed = problem.time(front.travelled), problem.sign * h
    direct = keep is GradientMode.DIRECT
    trial = take_step(problem.field, problem.tableau, t, signed, front.y, front.slope, keep=direct)
    ratio, leaving, status = _verdict(problem, progress, front, trial, h, target)
    accepted = ratio <= 1
    all_accepted, any_leaving = torch.stack([accepted.all(), leaving.any()]).tolist()  # the one read from the device

    _book(progress, front, problem, trial, accepted, h)
    progress.status[front.index] = status
    if keep is not None:
        taken = _taken(progress, front, t, signed, trial, None if all_accepted else accepted)
        progress.trace[-1] += [taken] if len(taken.t) else []  # f need not bear a batch of none
    front = _moved(front, trial, h, accepted, all_accepted)
    front.size = next_size(h, ratio, problem.tableau.order)
    return _part(progress, front, leaving) if any_leaving else front


def _verdict(
    problem: Problem, progress: Progress, front: _Front, trial: Trial, h: PerImage, target: float
) -> tuple[PerImage, Tensor, Tensor]:
    """Return for each image the error ratio that decides, whether it goes no further, and its status."""
    own = error_ratio(trial, front.y, problem.solver)
    ratio = over_batch(own, problem.solver)
    arrived = (ratio <= 1) & (h >= target - front.travelled)
    stuck = ~(ratio <= 1) & ~(own <= 1) & (h < _SMALLEST_STEP * target)  # a neighbour with shared steps is not to blame
    spent = ~arrived & (progress.tried[front.index] + 1 >= problem.solver.max_steps)
    reason = torch.where(torch.isfinite(own), Status.UNDERFLOW, Status.NON_FINITE)
    status = torch.where(stuck, reason, torch.where(spent, Status.STEP_LIMIT, Status.DONE))
    return ratio, arrived | stuck | spent, status


def _landing_size(size: PerImage, left: PerImage) -> PerImage:
    """Return the step to try: onto the target if it is near, half the way if it is less than two steps off."""
    return torch.where(size >= left, left, torch.where(2 * size >= left, left / 2, size))


def _book(progress: Progress, front: _Front, problem: Problem, trial: Trial, accepted: Tensor, h: PerImage) -> None:
    row = torch.zeros_like(progress.error)
    row[front.index] = h * accepted
    progress.sizes.append(row)
    progress.attempts += 1
    progress.tried[front.index] += 1
    progress.evaluations[front.index] += problem.tableau.stages - 1
    progress.rejected[front.index] += ~accepted
    progress.error[front.index] += torch.where(accepted, rms(trial.error), 0.0)


def _taken(progress: Progress, front: _Front, t: PerImage, h: PerImage, trial: Trial, accepted: Tensor | None) -> Taken:
    """Record an accepted step. Where only some were accepted what was kept is of no use: those steps are made again."""
    if accepted is not None:
        return Taken(front.index[accepted], t[accepted], h[accepted], front.y[accepted], ())
    index = None if len(front.index) == len(progress.y) else front.index
    return Taken(index, t, h, front.y, front.first + trial.kept[:-1])


def _moved(front: _Front, trial: Trial, h: PerImage, accepted: Tensor, all_accepted: bool) -> _Front:
    y, slope = trial.y_next, trial.slope_next.to(trial.y_next.dtype)
    if all_accepted:
        return _Front(front.index, front.travelled + h, h, y, slope, trial.kept[-1:])
    choice = like_state(accepted, y).bool()
    y, slope = torch.where(choice, y, front.y), torch.where(choice, slope, front.slope)
    return _Front(front.index, front.travelled + h * accepted, h, y, slope, ())


def _part(progress: Progress, front: _Front, leaving: Tensor) -> _Front:
    """Put the states of the images that arrived or are stuck into the batch, and return those that go on."""
    going_on = front.only(~leaving)
    if len(going_on.index) == 0 and len(front.index) == len(progress.y):
        progress.y, progress.slope, progress.size = front.y, front.slope, front.size
        return going_on
    out = front.only(leaving)
    progress.y = _replaced(progress.y, out.index, out.y)
    progress.slope = _replaced(progress.slope, out.index, out.slope)
    progress.size = _replaced(progress.size, out.index, out.size)
    return going_on


def _replaced(whole: Tensor, index: Tensor, part: Tensor) -> Tensor:
    result = whole.clone()  # never in place: the old states may be the caller's, or kept for the backward pass
    result[index] = part
    return result


def marked(progress: Progress) -> Tensor:
    """Return the states with those of failed images not a number, so that no one takes them for a result."""
    failed = like_state(progress.status != Status.DONE, progress.y).bool()
    return torch.where(failed, torch.nan, progress.y)  # masked_fill would lose the memory layout


def follow(problem: Problem, y0: Tensor, sizes: Sizes, keep: GradientMode | None) -> Progress:
    """Take the given steps to each target in turn, without error control; a size of 0 stands still.

    Nothing is read back from an accelerator. On the CPU images that stand still leave the batch.
    """
    progress = nowhere(y0)
    travelled = progress.error.clone()
    for target, rows in zip(problem.targets, sizes, strict=True):
        progress.trace.append([])
        for h in rows:
            progress.sizes.append(h)
            _follow_step(problem, progress, travelled, h, keep)
            travelled = travelled + h
        progress.status[(travelled - target).abs() > 1e-9 * target] = Status.STEP_LIMIT  # given steps lead elsewhere
        progress.status[~torch.isfinite(rms(progress.y))] = Status.NON_FINITE
        progress.ends.append(marked(progress))
    return progress


def _follow_step(problem: Problem, progress: Progress, travelled: PerImage, h: PerImage, keep: GradientMode | None) -> None:
    index, y, whole = None, progress.y, progress.y
    if y.device.type == "cpu" and not bool(h.all()):
        index = torch.nonzero(h)[:, 0]
        if len(index) == 0:
            return
        y, h, travelled = y[index], h[index], travelled[index]
    tableau, direct = problem.tableau.without_error, keep is GradientMode.DIRECT
    t, signed = problem.time(travelled), problem.sign * h
    slope, first = evaluate(problem.field, t, y, direct)
    trial = take_step(problem.field, tableau, t, signed, y, slope, keep=direct)
    progress.evaluations += tableau.stages * (progress.sizes[-1] > 0)
    if keep is not None:
        progress.trace[-1].append(Taken(index, t, signed, y, first + trial.kept))
    progress.y = trial.y_next if index is None else _replaced(whole, index, trial.y_next)
