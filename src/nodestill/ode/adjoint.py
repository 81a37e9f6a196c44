"""The continuous adjoint: solve y and its sensitivity a backwards in time, with memory independent of the number of steps.

    da/dt = -a df/dy,  a(t1) = dL/dy(t1);      dL/dtheta = integral from t0 to t1 of a df/dtheta

This is *not* the gradient of the solve that was run: it has an error of the size of the tolerance, which on long horizons at
loose tolerances can turn it into another direction altogether. It is here for comparison and for memory; do not attack with it.

Source: Chen et al. 2018, "Neural Ordinary Differential Equations", eqs. 4-5. Differs: y restarts from its forward value at each
asked-for time; steps are controlled per image on (y, a) alone, the parameters' integral follows the same steps.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nodestill.errors import SolveError
from nodestill.first_derivative import first_derivative_only
from nodestill.ode.progress import Problem, Progress, Sizes
from nodestill.ode.scope import asked_for, check_scope, frozen_weights
from nodestill.ode.solver import failures
from nodestill.ode.step import Field, Kept, add, evaluate, like_state, pull_back_slope, take_step, without_autocast
from nodestill.ode.trace import Taken
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
        problem, healthy = ctx.problem, torch.nonzero(~failures(status))[:, 0]
        wanted = asked_for(ctx, ctx.parameters)
        a, gradients = torch.zeros_like(ends[-1][healthy]), [None] * len(wanted)
        for i in reversed(range(len(ends) if len(healthy) else 0)):
            a = a if of_ends[i] is None else a + of_ends[i][healthy]
            given = None if ctx.sizes is None else [[h[healthy] for h in reversed(ctx.sizes[i])]]
            a, new = _stretch(_backwards(problem, i), problem.field, given, torch.cat([ends[i][healthy], a], 1), wanted)
            gradients = [add(total, part) for total, part in zip(gradients, new, strict=True)]
        whole = torch.zeros_like(ends[-1])
        whole[healthy] = a
        by_parameter = dict(zip(map(id, wanted), gradients, strict=True))
        return None, None, None, whole, *[by_parameter.get(id(p)) for p in ctx.parameters]


class _Augmented(nn.Module):
    """The right-hand side of (y, a), joined along dimension 1."""

    def __init__(self, dynamics: nn.Module) -> None:
        super().__init__()
        self.dynamics = dynamics

    def forward(self, t: Tensor, joined: Tensor) -> Tensor:
        y, a = joined.chunk(2, 1)
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            slope = self.dynamics(t, y)
        pulled, *_ = pull_back_slope(Kept(y, slope), a, ())
        return torch.cat([slope.detach(), -pulled], 1).to(joined.dtype)


def _backwards(problem: Problem, i: int) -> Problem:
    """Return the problem of (y, a) from target i back to the one before."""
    start = problem.targets[i - 1] if i else 0.0
    field = Field(_Augmented(problem.field.dynamics), problem.field.precision)
    t0 = problem.t0 + problem.sign * problem.targets[i]
    return problem._replace(field=field, t0=t0, sign=-problem.sign, targets=(problem.targets[i] - start,))


def _stretch(
    backwards: Problem, field: Field, sizes: Sizes | None, joined: Tensor, wanted: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor | None]]:
    """Carry a from a target back to the one before, and collect the parameters' integral on the way."""
    integral = _ParameterIntegral(field, backwards, wanted)
    progress = travel(backwards, sizes, joined, integral if wanted else None)
    failed = failures(progress.status)
    if bool(failed.any()):
        raise SolveError(
            f"The adjoint solve did not arrive for {int(failed.sum())} of {len(failed)} images. "
            "Use GradientMode.RECOMPUTE, which needs no second solve, or loosen the tolerances."
        )
    return progress.ends[-1].chunk(2, 1)[1], integral.gradients


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
            y, a = (part.contiguous() for part in evaluation.y.detach().chunk(2, 1))
            _, (again,) = evaluate(self.field, taken.t + float(tableau.c[i]) * taken.h, y, True)
            weight = like_state(-taken.h * float(tableau.b[i]), a)
            _, *new = pull_back_slope(again, a * weight, self.wanted)
            self.gradients = [add(total, part) for total, part in zip(self.gradients, new, strict=True)]
