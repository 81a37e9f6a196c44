"""A reversible fixed-step method: its states are computed backwards, so an exact gradient needs no stored steps.

    y' = lam y + (1 - lam) z + psi(h, t, z)          psi(h, t, x): the increment of an explicit midpoint step of size h
    z' = z - psi(-h, t + h, y')                      z(t0) = y(t0)

is undone by  z = z' + psi(-h, t + h, y'),  y = (y' - (1 - lam) z - psi(h, t, z)) / lam.  In floating point this comes out at
y0 only nearly: the difference is measured at the end of every backward pass (`Solution.reconstruction_error`), and an image
for which it is above a bound is refused a gradient. A step of size 0 stands still.

Source: McCallum and Foster 2024, "Efficient, Accurate and Stable Gradients for Neural ODEs" (arXiv 2410.11648), section 3.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nodestill.first_derivative import first_derivative_only
from nodestill.ode.field import Field, PerImage, like_state, shared_casts, without_autocast
from nodestill.ode.progress import Problem, Progress, Sizes, marked, nowhere
from nodestill.ode.scope import asked_for, check_scope, frozen_weights, refuse_images
from nodestill.ode.solver import Status, failures, named
from nodestill.ode.step import Kept, add, all_finite, evaluate, pull_back_slope, rms

_COUPLING = 0.99  # lam: nearer to 1 is more accurate backwards, farther is more stable
_LARGEST_ERROR = 1e-3  # of the reconstructed start, relative to its size: beyond it the gradient is not that of the solve


class ReversibleSolve(torch.autograd.Function):
    """The solve as one autograd function; keeps its two ends and nothing between."""

    @staticmethod
    def forward(
        ctx: Any, problem: Problem, sizes: Sizes, found: list[Progress], y0: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.frozen = frozen_weights(problem.field.dynamics)
        progress, z = nowhere(y0), y0
        travelled, way = progress.size, None
        with shared_casts(y0.device):
            for h in sizes[0]:
                signed, t = problem.sign * h, problem.time(travelled)
                progress.y, z = _still(h, (progress.y, z), _forth(problem.field, t, signed, progress.y, z))
                way = (rms(progress.y - y0) / h * problem.targets[-1]).nan_to_num(nan=torch.inf) if way is None else way
                travelled = travelled + h
                progress.evaluations += 4 * (h > 0)
                progress.sizes.append(h)
        progress.status[(travelled - problem.targets[-1]).abs() > 1e-9 * problem.targets[-1]] = Status.STEP_LIMIT
        progress.status[~all_finite(progress.y)] = Status.NON_FINITE
        progress.reconstruction_error = torch.full_like(travelled, torch.nan)
        ctx.problem, ctx.sizes, ctx.parameters, ctx.device = problem, sizes[0], parameters, y0.device
        ctx.size, ctx.missed_by = _size(y0, progress.y.detach(), way), progress.reconstruction_error
        ctx.save_for_backward(y0, progress.y.detach(), z, travelled, progress.status, *parameters)
        found.append(progress)
        error = progress.error.to(y0.dtype)
        ctx.mark_non_differentiable(error)
        return error, marked(progress)

    @staticmethod
    @first_derivative_only
    @without_autocast
    def backward(ctx: Any, of_error: Tensor | None, of_y: Tensor) -> tuple[Tensor | None, ...]:
        if len(of_y) == 0:
            return None, None, None, of_y, *map(torch.zeros_like, ctx.parameters)
        y0, y, z, travelled, status = ctx.saved_tensors[:5]  # refuses if y0 or a weight was changed in place
        check_scope(ctx.problem, y0, ctx.parameters, ctx.frozen)
        wanted = asked_for(ctx, ctx.parameters)
        going = torch.nonzero(~failures(status) & of_y.ne(0).flatten(1).any(1))[:, 0]
        starts, bar, gradients = _way_back(ctx, (y, z, travelled, of_y), going, wanted)
        ctx.missed_by[going] = reconstruction_error(y0[going], starts, ctx.size[going])
        lost = ~(ctx.missed_by[going] <= _LARGEST_ERROR)
        missed, going = going[lost], going[~lost]
        if len(missed):
            _refuse(ctx, missed, y0.dtype)
            _, bar, gradients = _way_back(ctx, (y, z, travelled, of_y), going, wanted)
        whole = torch.zeros_like(of_y)
        whole[going], whole[missed] = bar, torch.nan
        by_parameter = dict(zip(map(id, wanted), gradients, strict=True))
        return None, None, None, whole, *[by_parameter.get(id(p)) for p in ctx.parameters]


def reconstruction_error(start: Tensor, reconstructed: Tensor, size: PerImage) -> PerImage:
    """Return the RMS difference of each image from its start, in units of its size."""
    return rms(reconstructed - start) / size.clamp_min(torch.finfo(size.dtype).tiny)


def _size(start: Tensor, end: Tensor, way: PerImage | None) -> PerImage:
    """Return what the error of a reconstructed start is measured by: the size of the start, or of the end if that is larger.

    A start may be zero. An end that grew by more than `way`, which the first step would make if all went on like it, counts
    no more: an error of the size of the start is not small because the end is far away.
    """
    return rms(start) if way is None else torch.maximum(rms(start), torch.minimum(rms(end), way))


def _refuse(ctx: Any, missed: Tensor, dtype: torch.dtype) -> None:
    remedy = "solve in float64, or use another method" if dtype == torch.float32 else "or use another method"
    refuse_images(
        ctx.problem,
        f"Going backwards the reversible solve missed the start of {named(missed, len(ctx.missed_by))} by up to "
        f"{float(ctx.missed_by[missed].max()):.1e} of their size, expected at most {_LARGEST_ERROR:g}, so their gradient would "
        f"be wrong. Take fewer steps, or more if f is stiff, {remedy}.",
    )


def _way_back(
    ctx: Any, ends: tuple[Tensor, ...], going: Tensor, wanted: Sequence[Tensor]
) -> tuple[Tensor, Tensor, list[Tensor | None]]:
    """Return the starts of some images made again, the gradient there, and that of the parameters."""
    y, z, travelled, bar_y = (part[going] for part in ends)
    bar_z, gradients = torch.zeros_like(bar_y), [None if len(going) else torch.zeros_like(p) for p in wanted]
    for h in (row[going] for row in reversed(ctx.sizes if len(going) else ())):  # f need not bear a batch of none
        travelled = travelled - h
        signed, t = ctx.problem.sign * h, ctx.problem.time(travelled)
        *found, new = _back(ctx.problem.field, t, signed, (y, z), (bar_y, bar_z), wanted)
        y, z, bar_y, bar_z = _still(h, (y, z, bar_y, bar_z), found)
        gradients = [add(total, part) for total, part in zip(gradients, new, strict=True)]
    return y, bar_y + bar_z, gradients


def _still(h: PerImage, old: Sequence[Tensor], new: Sequence[Tensor]) -> list[Tensor]:
    """Return the new values of those images that move, and the old ones of those whose step is 0."""
    return [torch.where(like_state(h != 0, b).bool(), b, a) for a, b in zip(old, new, strict=True)]


def _forth(field: Field, t: PerImage, h: PerImage, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    up, _ = _increment(field, t, h, z, keep=False)
    y = _COUPLING * y + (1 - _COUPLING) * z + up
    down, _ = _increment(field, t + h, -h, y, keep=False)
    return y, z - down


def _back(
    field: Field,
    t: PerImage,
    h: PerImage,
    state: tuple[Tensor, Tensor],
    cotangents: tuple[Tensor, Tensor],
    parameters: Sequence[Tensor],
) -> tuple[Tensor, Tensor, Tensor, Tensor, list[Tensor | None]]:
    """Undo one step and pull the cotangents of its two states back through it."""
    (y, z), (bar_y, bar_z) = state, cotangents
    down, kept = _increment(field, t + h, -h, y, keep=True)
    pulled, of_down = _pull_back_increment(kept, -h, -bar_z, parameters)
    z, bar_y = z + down, bar_y + pulled
    up, kept = _increment(field, t, h, z, keep=True)
    pulled, of_up = _pull_back_increment(kept, h, bar_y, parameters)
    y = (y - (1 - _COUPLING) * z - up) / _COUPLING
    gradients = [add(a, b) for a, b in zip(of_down, of_up, strict=True)]
    return y, z, _COUPLING * bar_y, bar_z + (1 - _COUPLING) * bar_y + pulled, gradients


def _increment(field: Field, t: PerImage, h: PerImage, x: Tensor, *, keep: bool) -> tuple[Tensor, tuple[Kept, ...]]:
    """Return h f(t + h/2, x + h/2 f(t, x)), and the two evaluations if they are to be kept."""
    size = like_state(h, x)
    slope, first = evaluate(field, t, x, keep)
    slope, second = evaluate(field, t + h / 2, x + size / 2 * slope.to(x.dtype), keep)
    return size * slope.to(x.dtype), first + second


def _pull_back_increment(
    kept: Sequence[Kept], h: PerImage, cotangent: Tensor, parameters: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor | None]]:
    size = like_state(h, cotangent)
    of_middle, second = pull_back_slope(kept[1], size * cotangent, parameters)
    of_start, first = pull_back_slope(kept[0], size / 2 * of_middle, parameters)
    return of_middle + of_start, [add(a, b) for a, b in zip(first, second, strict=True)]
