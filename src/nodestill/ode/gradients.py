"""The ways to differentiate a solve, as autograd functions around loops that know nothing of them.

DIRECT and RECOMPUTE, here, pull the gradient back through the very steps that were taken, with their sizes held constant: no
derivative of step-size control, so nothing of one image leaks into another. RECOMPUTE makes the evaluations of each step again
from the state it started from, on a CPU those of a part of the batch at a time where each image has steps of its own, so that
what their derivatives need is small beside the states; DIRECT kept them (`trace.py`). ADJOINT and the reversible method have
files of their own.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from nodestill.first_derivative import first_derivative_only
from nodestill.ode.adjoint import AdjointSolve
from nodestill.ode.field import Field, like_state, without_autocast
from nodestill.ode.progress import Problem, Progress, Sizes
from nodestill.ode.reversible import ReversibleSolve
from nodestill.ode.scope import asked_for, check_leaves, check_weights, frozen_weights, weights_of
from nodestill.ode.solver import GradientMode, Method, Solver, StepControl, failures
from nodestill.ode.step import Kept, add, evaluate, pull_back_step, take_step
from nodestill.ode.tableaus import Tableau
from nodestill.ode.trace import Taken, Trace
from nodestill.ode.travel import travel

_FEW_STEPS = 4  # a solve of no more goes back with the whole batch at once: it holds little anyway, and small parts are slower
_PART_IMAGES, _PART_BYTES = 32, 2**19  # a longer one in parts of no fewer images, nor fewer bytes of state: they fill a CPU


def differentiable(problem: Problem, sizes: Sizes | None, y0: Tensor) -> tuple[Progress, Tensor, tuple[Tensor, ...]]:
    """Solve, and connect the results to y0 and to the parameters of f for a later backward pass.

    Returns:
        What was counted; the error, shape (batch,); the state at each target, each shaped like y0. If nothing asks for a
        gradient nothing is kept.
    """
    if not torch.compiler.is_compiling():
        return _by_hand(problem, sizes, y0)
    if sizes is None or problem.solver.method is Method.REVERSIBLE:
        return _outside_the_graph(problem, sizes, y0)
    progress = travel(problem, sizes, y0, None)  # autograd is the compiler's here
    return progress, progress.error.to(y0.dtype), tuple(progress.ends)


def _by_hand(problem: Problem, sizes: Sizes | None, y0: Tensor) -> tuple[Progress, Tensor, tuple[Tensor, ...]]:
    parameters = [p for p in problem.field.dynamics.parameters() if p.requires_grad]
    if not torch.is_grad_enabled():  # an autograd function sees what requires a gradient, not whether one is recorded
        y0, parameters = y0.detach(), []
    found: list[Progress] = []
    error, *ends = _function(problem).apply(problem, sizes, found, y0, *parameters)
    return found[0], error, tuple(ends)


_outside_the_graph = torch._disable_dynamo(_by_hand)  # torch.compiler.disable would load the compiler at once


def _function(problem: Problem) -> type[torch.autograd.Function]:
    if problem.solver.method is Method.REVERSIBLE:
        return ReversibleSolve
    return AdjointSolve if problem.solver.gradient is GradientMode.ADJOINT else _Solve


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, problem: Problem, sizes: Sizes | None, found: list[Progress], y0: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        direct, wanted = problem.solver.gradient is GradientMode.DIRECT, any(ctx.needs_input_grad)
        trace = Trace(len(y0), problem.solver.kept_bytes, keeps_evaluations=direct) if wanted else None
        ctx.frozen = frozen_weights(problem.field.dynamics)
        progress = travel(problem, sizes, y0, trace)
        failed = failures(progress.status)
        if trace is not None and bool(failed.any()):
            trace.leave_out(failed)
        ctx.set_materialize_grads(False)
        states = [] if trace is None else trace.hand_over()
        ctx.save_for_backward(y0, *states, *parameters)
        ctx.problem, ctx.parameters, ctx.failed, ctx.trace = problem, parameters, failed, trace
        ctx.device = y0.device
        found.append(progress)
        error = progress.error.to(y0.dtype)
        if sizes is not None:  # steps that were given, not chosen: nothing was estimated
            ctx.mark_non_differentiable(error)
        return error, *progress.ends

    @staticmethod
    @first_derivative_only
    @without_autocast
    def backward(ctx: Any, of_error: Tensor | None, *of_ends: Tensor | None) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # refuses if y0 or a weight was changed in place: steps made again would be others
        states = saved[1 : len(saved) - len(ctx.parameters)]
        check_weights(ctx.problem.field.dynamics, ctx.parameters, ctx.frozen)
        wanted = asked_for(ctx, ctx.parameters)
        cotangent, gradients = None, None
        for target in reversed(range(len(of_ends))):
            cotangent = add(cotangent, _of_arrived(of_ends[target], ctx.failed))
            if cotangent is None and of_error is None:
                continue
            for taken in _steps_back(ctx, states, target, of_error is not None):
                cotangent, new = _pull_back(ctx, taken, cotangent, of_error, wanted)
                gradients = new if gradients is None else [add(total, part) for total, part in zip(gradients, new, strict=True)]
        if gradients is None:  # nobody went back: of no image there was, or of those that failed
            cotangent = torch.zeros_like(saved[0]) if cotangent is None else cotangent
            gradients = [torch.zeros_like(p) for p in wanted]
        ctx.trace.forget_evaluations()  # those of targets that no gradient came from
        by_parameter = dict(zip(map(id, wanted), gradients, strict=True))
        return None, None, None, cotangent, *[by_parameter.get(id(p)) for p in ctx.parameters]


def _of_arrived(gradient: Tensor | None, failed: Tensor) -> Tensor | None:
    """Return the gradient with that of failed images set to zero, even where a caller's loss made it not a number."""
    return None if gradient is None else torch.where(like_state(failed, gradient).bool(), 0.0, gradient)


def _steps_back(ctx: Any, states: Sequence[Tensor], target: int, of_error: bool) -> Iterator[Taken]:
    """Yield the steps towards a target, the last one first: of the images that took them, and of how many at once.

    What the error estimate needs is not kept.
    """
    for taken in ctx.trace.backwards(ctx.problem.field, ctx.problem.tableau, target, states):
        taken = (taken._replace(kept=()) if of_error else taken).accepted()
        if len(taken.t) == 0:
            continue  # f need not bear a batch of none
        yield from taken.parts(len(taken.t) if taken.kept else _at_once(ctx.problem.solver, ctx.trace, taken.y))


def _at_once(solver: Solver, trace: Trace, y: Tensor) -> int:
    """Return how many images go back through a step together, whose evaluations are then in memory at once.

    All of them, unless f has seen parts of the batch in the forward pass too, as it does where each image has steps of its own:
    an f that joins the images of a batch, as anybody's may, keeps its gradient.
    """
    alone = solver.method.is_adaptive and solver.step_control is StepControl.PER_IMAGE
    if not alone or trace.steps <= _FEW_STEPS or y.device.type != "cpu":
        return len(y)
    return max(_PART_IMAGES, _PART_BYTES * len(y) // max(y.nbytes, 1))


def _pull_back(
    ctx: Any, taken: Taken, cotangent: Tensor | None, of_error: Tensor | None, wanted: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor | None]]:
    """Pull the cotangent of the batch back through one step of some images.

    The evaluations are this function's alone, so that they are gone before those of another step are made.
    """
    tableau, kept = _evaluations(ctx.problem, taken, of_error is not None, bool(wanted) or not ctx.parameters)
    for evaluation in (kept[0], kept[-1]):  # of every step, at 10 us: f may read a tensor at some times only
        check_leaves(weights_of(ctx.parameters, ctx.frozen), evaluation)
    whole = _shaped(cotangent, taken, len(ctx.failed))
    part = whole if taken.positions is None else whole[taken.positions]
    if of_error is not None:
        of_error = (of_error if taken.positions is None else of_error[taken.positions]).double()
    part, gradients = pull_back_step(kept, tableau, taken.h, _dense_like(part, taken.y), of_error, wanted)
    if taken.positions is None:
        return part, gradients
    whole[taken.positions] = part  # in place: `_of_arrived` and `_shaped` made it, it is not the caller's
    return whole, gradients


def _shaped(cotangent: Tensor | None, taken: Taken, batch: int) -> Tensor:
    """Return the cotangent of the whole batch; a loss of the error estimate alone starts it from zero."""
    if cotangent is not None:
        return cotangent
    return taken.y.new_zeros((batch, *taken.y.shape[1:]))


def _dense_like(cotangent: Tensor, y: Tensor) -> Tensor:
    return cotangent if cotangent.stride() == y.stride() else torch.empty_like(y).copy_(cotangent)


def _evaluations(problem: Problem, taken: Taken, of_error: bool, all_asked: bool) -> tuple[Tableau, tuple[Kept, ...]]:
    """Return the evaluations of a step that its solution needs, or its error as well, and the tableau of just these.

    Graphs have the gradients of all weights that are watched: where none is asked for, evaluations are made without.
    """
    tableau = problem.tableau if of_error else problem.tableau.without_error
    return tableau, _made(problem.field if all_asked else problem.field.uncompiled, tableau, taken)


def _made(field: Field, tableau: Tableau, taken: Taken) -> tuple[Kept, ...]:
    """Return the evaluations of a step, making again those that were not kept."""
    missing = tableau.stages - len(taken.kept)
    if missing == 0:
        return taken.kept
    slope, first = evaluate(field, taken.t, taken.y, True)
    if missing == 1:
        return first + taken.kept
    with torch.no_grad():
        return first + take_step(field, tableau, taken.t, taken.h, taken.y, slope, keep=True).kept
