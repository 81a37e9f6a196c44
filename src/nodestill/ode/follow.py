"""The loop of a solve along given step sizes, without error control."""

import torch
from torch import Tensor

from nodestill.ode.field import PerImage, maybe_compiled
from nodestill.ode.progress import Problem, Progress, Sizes, marked, nowhere
from nodestill.ode.solver import Status
from nodestill.ode.step import all_finite, evaluate, take_step
from nodestill.ode.trace import Steps, Taken, placed


def follow(problem: Problem, y0: Tensor, sizes: Sizes, steps: Steps | None) -> Progress:
    """Take the given steps to each target in turn, without error control; a size of 0 stands still.

    Nothing is read back from an accelerator. On the CPU images that stand still leave the batch.
    """
    progress = nowhere(y0)
    travelled = progress.error.clone()
    for target, rows in zip(problem.targets, sizes, strict=True):
        if steps is not None:
            steps.begin()
        for h in rows:
            progress.sizes.append(h)
            _follow_step(problem, progress, travelled, h, steps)
            travelled = travelled + h
        progress.status[(travelled - target).abs() > 1e-9 * target] = Status.STEP_LIMIT  # given steps lead elsewhere
        progress.status[~all_finite(progress.y)] = Status.NON_FINITE
        progress.ends.append(marked(progress))
    return progress


def _follow_step(problem: Problem, progress: Progress, travelled: PerImage, h: PerImage, steps: Steps | None) -> None:
    index, y, whole = None, progress.y, progress.y
    if _may_read(y.device) and not bool(h.all()):
        index = torch.nonzero(h)[:, 0]
        if len(index) == 0:
            return
        y, h, travelled = y[index], h[index], travelled[index]
    tableau, keep = problem.tableau.without_error, steps is not None and steps.keeps_evaluations
    t, signed = problem.time(travelled), problem.sign * h
    slope, first = evaluate(problem.field, t, y, keep)
    trial = maybe_compiled(take_step, problem.field, keep=keep)(problem.field, tableau, t, signed, y, slope, keep=keep)
    progress.evaluations += tableau.stages * (progress.sizes[-1] > 0)
    if steps is not None:
        steps.add(Taken(index, t, signed, y, first + trial.kept, rejections=False))
    progress.y = placed(whole, index, trial.y_next)


def _may_read(device: torch.device) -> bool:
    """Whether looking at a number costs nothing: not where it would wait for an accelerator, or end a compiler's graph."""
    return device.type == "cpu" and not torch.compiler.is_compiling()
