"""The ways to differentiate a solve, as one autograd function around loops that know nothing of it.

Both modes pull the gradient back through the very steps that were taken, with their sizes held constant: no derivative of
step-size control, so nothing of one image leaks into another. RECOMPUTE makes the evaluations of each step again from the
state it started from; DIRECT kept them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nodestill.errors import InputError
from nodestill.ode.march import Problem, Progress, Taken
from nodestill.ode.solver import GradientMode, Status
from nodestill.ode.step import Kept, add, evaluate, pull_back_step, take_step
from nodestill.ode.tableaus import Tableau

Travel = Callable[[Tensor, GradientMode | None], Progress]


def differentiable(problem: Problem, travel: Travel, y0: Tensor) -> tuple[Progress, Tensor, tuple[Tensor, ...]]:
    """Solve, and connect the results to y0 and to the parameters of f for a later backward pass.

    Returns:
        What was counted; the error, shape (batch,); the state at each target, each shaped like y0. If nothing asks for a
        gradient nothing is kept.
    """
    parameters = [p for p in problem.field.dynamics.parameters() if p.requires_grad]
    found: list[Progress] = []
    error, *ends = _Solve.apply(problem, travel, found, y0, *parameters)
    return found[0], error, tuple(ends)


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, problem: Problem, travel: Travel, found: list[Progress], y0: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        wanted = any(ctx.needs_input_grad)
        progress = travel(y0, problem.solver.gradient if wanted else None)
        ctx.set_materialize_grads(False)
        ctx.problem, ctx.parameters, ctx.trace, ctx.status = problem, parameters, progress.trace, progress.status
        found.append(progress)
        error = progress.error.to(y0.dtype)
        if progress.attempts == 0:  # steps that were given, not chosen: nothing was estimated
            ctx.mark_non_differentiable(error)
        return error, *progress.ends

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_error: Tensor | None, *of_ends: Tensor | None) -> tuple[Tensor | None, ...]:
        wanted = [p for p, needed in zip(ctx.parameters, ctx.needs_input_grad[4:], strict=True) if needed]
        cotangent, gradients = None, [None] * len(wanted)
        for of_end, steps in zip(reversed(of_ends), reversed(ctx.trace), strict=True):
            cotangent = add(cotangent, _of_arrived(of_end, ctx.status))
            for i in reversed(range(len(steps))):
                cotangent, new = _pull_back(ctx.problem, steps[i], cotangent, of_error, wanted)
                gradients = [add(total, part) for total, part in zip(gradients, new, strict=True)]
                steps[i] = steps[i]._replace(kept=())  # spent: a second backward pass makes them again
        by_parameter = dict(zip(map(id, wanted), gradients, strict=True))
        return None, None, None, cotangent, *[by_parameter.get(id(p)) for p in ctx.parameters]


def _of_arrived(gradient: Tensor | None, status: Tensor) -> Tensor | None:
    """Return the gradient with that of failed images set to zero, even where a caller's loss made it not a number."""
    if gradient is None:
        return None
    failed = (status != Status.DONE).reshape(-1, *[1] * (gradient.dim() - 1))
    return gradient.masked_fill(failed, 0.0)


def _pull_back(
    problem: Problem, taken: Taken, cotangent: Tensor | None, of_error: Tensor | None, wanted: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor | None]]:
    """Pull the cotangent of the batch back through one step of those images that took it."""
    whole = _shaped(cotangent, taken, of_error)
    part = whole if taken.index is None else whole[taken.index]
    if of_error is not None:
        tableau, kept = problem.tableau, _evaluations(problem, problem.tableau, taken._replace(kept=()))
        of_error = (of_error if taken.index is None else of_error[taken.index]).double()
    else:
        tableau = problem.tableau.without_error
        kept = _evaluations(problem, tableau, taken)
    part, gradients = pull_back_step(kept, tableau, taken.h, _dense_like(part, taken.y), of_error, wanted)
    if taken.index is not None:
        whole = whole.clone()
        whole[taken.index] = part
        part = whole
    return part, gradients


def _shaped(cotangent: Tensor | None, taken: Taken, of_error: Tensor | None) -> Tensor:
    """Return the cotangent of the whole batch; a loss of the error estimate alone starts it from zero."""
    if cotangent is not None:
        return cotangent
    count = len(taken.y) if of_error is None else len(of_error)
    return taken.y.new_zeros((count, *taken.y.shape[1:]))


def _dense_like(cotangent: Tensor, y: Tensor) -> Tensor:
    return cotangent if cotangent.stride() == y.stride() else torch.empty_like(y).copy_(cotangent)


def _evaluations(problem: Problem, tableau: Tableau, taken: Taken) -> tuple[Kept, ...]:
    """Return the evaluations of a step, making again those that were not kept."""
    missing = tableau.stages - len(taken.kept)
    if missing == 0:
        return taken.kept
    slope, first = evaluate(problem.field, taken.t, taken.y, True)
    if missing == 1:
        return first + taken.kept
    with torch.no_grad():
        return first + take_step(problem.field, tableau, taken.t, taken.h, taken.y, slope, keep=True).kept


def check_leaves(problem: Problem, y0: Tensor) -> None:
    """Refuse an f that reads tensors with a gradient which a solve could not return.

    Raises:
        InputError: If f depends on a tensor that requires a gradient and is not one of its parameters.
    """
    known = {id(p) for p in problem.field.dynamics.parameters()}
    t = problem.time(torch.zeros(len(y0), dtype=torch.float64, device=y0.device))
    kept = evaluate(problem.field, t, y0.detach(), True)[1][0]
    pending, seen = [kept.slope.grad_fn], set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and leaf is not kept.y and id(leaf) not in known:
            raise InputError(
                f"f depends on a tensor of shape {tuple(leaf.shape)} that requires a gradient but is not one of its "
                "parameters, so its gradient would be lost. Register it as a parameter of f, or detach it."
            )
        pending += [parent for parent, _ in node.next_functions]
