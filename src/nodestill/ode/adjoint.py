"""The continuous adjoint: solve y and its sensitivity a backwards in time, with memory independent of the number of steps.

    da/dt = -a df/dy,  a(t1) = dL/dy(t1);      dL/dtheta = integral from t0 to t1 of a df/dtheta

This is *not* the gradient of the solve that was run: it has an error of the size of the tolerance, which on long horizons at
loose tolerances can turn it into another direction altogether. It is here for comparison and for memory; do not attack with it.

Source: Chen et al. 2018, "Neural Ordinary Differential Equations", eqs. 4-5. Differs: y restarts from its forward value at each
asked-for time; steps are controlled per image on (y, a) alone, the parameters' integral follows the same steps.

An image whose way back does not arrive is refused a gradient, and has no share in that of the parameters.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nodestill.first_derivative import first_derivative_only
from nodestill.ode.field import Field, like_state, without_autocast
from nodestill.ode.progress import Problem, Progress, Sizes
from nodestill.ode.scope import asked_for, check_scope, frozen_weights, refuse_images
from nodestill.ode.solver import failures, named
from nodestill.ode.step import Kept, add, evaluate, pull_back_slope, take_step
from nodestill.ode.trace import Taken, placed
from nodestill.ode.travel import travel


class AdjointSolve(torch.autograd.Function):
    """A solve that keeps its states at the targets, and is differentiated by another solve."""

    @staticmethod
    def forward(
        ctx: Any, problem: Problem, sizes: Sizes | None, found: list[Progress], y0: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.frozen = frozen_weights(problem.field.dynamics)
        progress = travel(problem, sizes, y0, None)
        ctx.set_materialize_grads(False)
        ctx.problem, ctx.sizes, ctx.parameters, ctx.device = problem, sizes, parameters, y0.device
        ctx.ends = len(progress.ends)
        ctx.save_for_backward(progress.status, *[end.detach() for end in progress.ends], *parameters)
        found.append(progress)
        error = progress.error.to(y0.dtype)
        ctx.mark_non_differentiable(error)
        return error, *progress.ends

    @staticmethod
    @first_derivative_only
    @without_autocast
    def backward(ctx: Any, of_error: Tensor | None, *of_ends: Tensor | None) -> tuple[Tensor | None, ...]:
        status, *saved = ctx.saved_tensors  # refuses if a weight was changed in place
        ends = saved[: ctx.ends]
        check_scope(ctx.problem, ends[-1], ctx.parameters, ctx.frozen)
        wanted, arrived = asked_for(ctx, ctx.parameters), ~failures(status)
        going = arrived
        a, gradients, lost = _way_back(ctx, (ends, of_ends), going, wanted)
        while bool(lost.any()):  # their shares are in the sums already; with shared steps others may be lost without them
            _refuse(ctx.problem, lost)
            going = going & ~lost
            a, gradients, lost = _way_back(ctx, (ends, of_ends), going, wanted)
        whole = torch.where(like_state(arrived & ~going, a).bool(), torch.nan, a)
        by_parameter = dict(zip(map(id, wanted), gradients, strict=True))
        return None, None, None, whole, *[by_parameter.get(id(p)) for p in ctx.parameters]


def _refuse(problem: Problem, lost: Tensor) -> None:
    refuse_images(
        problem,
        f"The adjoint solve did not arrive for {named(torch.nonzero(lost)[:, 0], len(lost))}. "
        "Use GradientMode.RECOMPUTE, which needs no second solve, or loosen the tolerances; but look at the loss first if the "
        "gradient that came from it is not finite.",
    )


def _way_back(
    ctx: Any, states: tuple[Sequence[Tensor], Sequence[Tensor | None]], going: Tensor, wanted: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor | None], Tensor]:
    """Carry the sensitivity of some images from target to target back to the start.

    An image moves from where the loss first asks for it: before, its sensitivity is zero, and so is its share in anything.

    Returns:
        The sensitivity at the start, zero for the other images; the gradients of the parameters; which images were lost.
    """
    ends, of_ends = states
    a, lost = torch.zeros_like(ends[-1]), torch.zeros_like(going)
    gradients: list[Tensor | None] | None = None
    for i in reversed(range(len(ends))):
        asked, still = of_ends[i], like_state(going & ~lost, a).bool()
        a = a if asked is None else torch.where(still, a + asked, 0.0)
        moving = torch.nonzero(a.ne(0).flatten(1).any(1))[:, 0]
        if len(moving) == 0:
            continue  # f need not bear a batch of none
        given = None if ctx.sizes is None else [[h[moving] for h in reversed(ctx.sizes[i])]]
        joined = torch.cat([ends[i][moving], a[moving]], 1)
        part, new, failed = _stretch(_backwards(ctx.problem, i), ctx.problem.field, given, joined, wanted)
        a = placed(a, moving, torch.where(like_state(failed, part).bool(), 0.0, part))
        lost = placed(lost, moving, failed)
        gradients = new if gradients is None else [add(total, one) for total, one in zip(gradients, new, strict=True)]
    return a, [torch.zeros_like(p) for p in wanted] if gradients is None else gradients, lost


class _Augmented(nn.Module):
    """The right-hand side of (y, a), joined along dimension 1."""

    def __init__(self, dynamics: nn.Module) -> None:
        super().__init__()
        self.dynamics = dynamics

    def forward(self, t: Tensor, joined: Tensor) -> Tensor:
        y, a = _halves(joined)
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            slope = self.dynamics(t, y)
        pulled, _ = pull_back_slope(Kept(y, slope), a, ())
        return torch.cat([slope.detach(), -pulled], 1).to(joined.dtype)


def _halves(joined: Tensor) -> list[Tensor]:
    """Return y and a as an f may expect them, filling their memory in the order of the whole."""
    return [part.clone() for part in joined.chunk(2, 1)]


def _backwards(problem: Problem, i: int) -> Problem:
    """Return the problem of (y, a) from target i back to the one before."""
    start = problem.targets[i - 1] if i else 0.0
    field = Field(_Augmented(problem.field.dynamics), problem.field.precision)
    t0 = problem.t0 + problem.sign * problem.targets[i]
    return problem._replace(field=field, t0=t0, sign=-problem.sign, targets=(problem.targets[i] - start,))


def _stretch(
    backwards: Problem, field: Field, sizes: Sizes | None, joined: Tensor, wanted: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor | None], Tensor]:
    """Carry a from a target back to the one before, collect the parameters' integral on the way, and say who failed."""
    integral = _ParameterIntegral(field, backwards, wanted)
    progress = travel(backwards, sizes, joined, integral if wanted else None)
    return progress.ends[-1].chunk(2, 1)[1], integral.gradients, failures(progress.status)


class _ParameterIntegral:
    """The integral of a df/dtheta, step by step as the solve goes: -h sum_i b_i a_i df/dtheta, h being negative in time."""

    keeps_evaluations = False

    def __init__(self, field: Field, backwards: Problem, wanted: Sequence[Tensor]) -> None:
        self.field, self.backwards, self.wanted = field, backwards, wanted
        self.gradients: list[Tensor | None] = [None] * len(wanted)

    def begin(self) -> None:
        """There is one stretch only."""

    def add(self, taken: Taken) -> None:
        """Add the share of one step."""
        taken = taken.accepted()
        tableau = self.backwards.tableau.without_error
        slope, kept = evaluate(self.backwards.field, taken.t, taken.y, True)
        kept += take_step(self.backwards.field, tableau, taken.t, taken.h, taken.y, slope, keep=True).kept
        for i, evaluation in enumerate(kept):
            y, a = _halves(evaluation.y.detach())
            t = taken.t + float(tableau.c[i]) * taken.h
            _, (again,) = evaluate(self.field, t, y, True, tableau.share_to_compensate(i))
            weight = like_state(-taken.h * float(tableau.b[i]), a)
            _, new = pull_back_slope(again, a * weight, self.wanted)
            self.gradients = [add(total, part) for total, part in zip(self.gradients, new, strict=True)]
