"""The adaptive loop of a solve. No automatic differentiation here.

Images are on their way independently: each has its own time, step size and verdict, they only share the calls of f. One that
has arrived leaves the batch, so nobody pays for the slowest neighbour. Whoever wants to go back hears of every step (`Steps`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from nodestill.ode.field import PerImage, like_state, maybe_compiled
from nodestill.ode.progress import Problem, Progress, marked, nowhere
from nodestill.ode.solver import Status, failures
from nodestill.ode.step import Kept, Trial, all_finite, evaluate
from nodestill.ode.step_size import judged_step, next_size, over_batch, probe_first_step
from nodestill.ode.trace import Steps, Taken, placed

_SMALLEST_STEP = 1e-13  # of the distance to go: below it, adding a step to float64 time loses the step


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
        index, travelled, size = self.index[chosen], self.travelled[chosen], self.size[chosen]
        return _Front(index, travelled, size, self.y[chosen], self.slope[chosen], first=())


def march(problem: Problem, y0: Tensor, steps: Steps | None) -> Progress:
    """Solve adaptively from t0 to each target in turn. An image that fails keeps its status and goes no further."""
    progress, first = _start(problem, y0, steps is not None and steps.keeps_evaluations)
    before = 0.0
    for target in problem.targets:
        if steps is not None:
            steps.begin()
        progress.status[~failures(progress.status) & (progress.tried >= problem.solver.max_steps)] = Status.STEP_LIMIT
        front = _leave(progress, before, first)
        while len(front.index):
            front = _attempt(problem, progress, front, target, steps)
        progress.status[~failures(progress.status) & ~all_finite(progress.y)] = Status.NON_FINITE  # by a finite f
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
    progress.status[~(all_finite(progress.slope) & all_finite(y0))] = Status.NON_FINITE
    if solver.first_step is not None:
        progress.size, probes = progress.size + solver.first_step, 0
    else:
        progress.size, probes = probe_first_step(problem.field, t, y0, progress.slope, solver, order, problem.sign), 1
    progress.evaluations += 1 + probes
    return progress, first


def _leave(progress: Progress, travelled: float, first: tuple[Kept, ...]) -> _Front:
    everyone = torch.arange(len(progress.y), device=progress.y.device)
    front = _Front(everyone, torch.full_like(progress.size, travelled), progress.size, progress.y, progress.slope, first)
    healthy = ~failures(progress.status)
    return front if bool(healthy.all()) else front.only(healthy)


def _attempt(problem: Problem, progress: Progress, front: _Front, target: float, steps: Steps | None) -> _Front:
    """Try one step of every image on its way; book what was accepted and return those that go on."""
    h = _landing_size(front.size, target - front.travelled)
    t, signed = problem.time(front.travelled), problem.sign * h
    keep = steps is not None and steps.keeps_evaluations
    step = maybe_compiled(judged_step, problem.field, keep=keep)
    trial, own, error = step(problem.field, problem.tableau, problem.solver, t, signed, front.y, front.slope, keep=keep)
    ratio, leaving, status = _verdict(problem, progress, front, own, h, target)
    accepted = ratio <= 1
    movers, leavers = torch.stack([accepted.sum(), leaving.sum()]).tolist()  # the one read from the device
    all_accepted = movers == len(h)

    _book(progress, front, problem, error, accepted, h)
    progress.status[front.index] = status
    if steps is not None and movers:
        steps.add(_taken(progress, front, t, signed * accepted, trial, all_accepted))
    front = _moved(front, trial, h, accepted, all_accepted)
    front.size = next_size(h, ratio, problem.tableau.order)
    return _part(progress, front, leaving, leavers) if leavers else front


def _verdict(
    problem: Problem, progress: Progress, front: _Front, own: PerImage, h: PerImage, target: float
) -> tuple[PerImage, Tensor, Tensor]:
    """Return for each image the error ratio that decides, whether it goes no further, and its status."""
    ratio = over_batch(own, problem.solver)
    arrived = (ratio <= 1) & (h >= target - front.travelled)
    stuck = ~(ratio <= 1) & ~(own <= 1) & (h < _SMALLEST_STEP * target)  # a neighbour with shared steps is not to blame
    spent = ~arrived & (progress.tried[front.index] + 1 >= problem.solver.max_steps)
    reason = torch.where(torch.isfinite(own), Status.UNDERFLOW, Status.NON_FINITE)
    limit = torch.where(torch.isfinite(own), Status.STEP_LIMIT, Status.NON_FINITE)
    status = torch.where(stuck, reason, torch.where(spent, limit, Status.DONE))
    return ratio, arrived | stuck | spent, status


def _landing_size(size: PerImage, left: PerImage) -> PerImage:
    """Return the step to try: onto the target if it is near, half the way if it is less than two steps off."""
    return torch.where(size >= left, left, torch.where(2 * size >= left, left / 2, size))


def _book(progress: Progress, front: _Front, problem: Problem, error: PerImage, accepted: Tensor, h: PerImage) -> None:
    row = torch.zeros_like(progress.error)
    row[front.index] = h * accepted
    progress.sizes.append(row)
    progress.attempts += 1
    progress.tried[front.index] += 1
    progress.evaluations[front.index] += problem.tableau.stages - 1
    progress.rejected[front.index] += ~accepted
    progress.error[front.index] += torch.where(accepted, error, 0.0)


def _taken(progress: Progress, front: _Front, t: PerImage, h: PerImage, trial: Trial, all_accepted: bool) -> Taken:
    """Record a step. Where only some accepted it what was kept is of no use: those steps are made again."""
    index = None if len(front.index) == len(progress.y) else front.index
    return Taken(index, t, h, front.y, front.first + trial.kept[:-1] if all_accepted else (), not all_accepted)


def _moved(front: _Front, trial: Trial, h: PerImage, accepted: Tensor, all_accepted: bool) -> _Front:
    y, slope = trial.y_next, trial.slope_next.to(trial.y_next.dtype)
    if all_accepted:
        return _Front(front.index, front.travelled + h, h, y, slope, trial.kept[-1:])
    choice = like_state(accepted, y).bool()
    y, slope = torch.where(choice, y, front.y), torch.where(choice, slope, front.slope)
    return _Front(front.index, front.travelled + h * accepted, h, y, slope, ())


def _part(progress: Progress, front: _Front, leaving: Tensor, leavers: int) -> _Front:
    """Put the states of the images that arrived or are stuck into the batch, and return those that go on."""
    if leavers == len(progress.y):
        progress.y, progress.slope, progress.size = front.y, front.slope, front.size
        return front.only(front.index[:0])
    order = leaving.to(torch.int8).argsort(stable=True)  # positions, not a mask: their number is known already
    staying, out = order[: len(order) - leavers], front.only(order[len(order) - leavers :])
    progress.y = placed(progress.y, out.index, out.y)
    progress.slope = placed(progress.slope, out.index, out.slope)
    progress.size = placed(progress.size, out.index, out.size)
    return front.only(staying)
