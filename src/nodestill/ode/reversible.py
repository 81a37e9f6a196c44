"""A reversible fixed-step method: its states are computed backwards, so an exact gradient needs no stored steps.

    y' = lam y + (1 - lam) z + psi(h, t, z)          psi(h, t, x): the increment of an explicit midpoint step of size h
    z' = z - psi(-h, t + h, y')                      z(t0) = y(t0)

is undone by  z = z' + psi(-h, t + h, y'),  y = (y' - (1 - lam) z - psi(h, t, z)) / lam.  In floating point this comes out at
y0 only nearly: the difference is measured at the end of every backward pass, logged, and refused above a bound.

Source: McCallum and Foster 2024, "Efficient, Accurate and Stable Gradients for Neural ODEs" (arXiv 2410.11648), section 3.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nodestill.errors import SolveError
from nodestill.first_derivative import first_derivative_only
from nodestill.ode.progress import Problem, Progress, Sizes, marked, nowhere
from nodestill.ode.scope import asked_for, check_scope, frozen_weights
from nodestill.ode.solver import Status, failures
from nodestill.ode.step import Field, Kept, PerImage, add, evaluate, like_state, pull_back_slope, rms, without_autocast

_log = logging.getLogger(__name__)
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
        travelled = progress.size
        for h in sizes[0]:
            signed, t = problem.sign * h, problem.time(travelled)
            progress.y, z = _forth(problem.field, t, signed, progress.y, z)
            travelled = travelled + h
            progress.evaluations += 4
            progress.sizes.append(h)
        progress.status[(travelled - problem.targets[-1]).abs() > 1e-9 * problem.targets[-1]] = Status.STEP_LIMIT
        progress.status[~torch.isfinite(rms(progress.y))] = Status.NON_FINITE
        ctx.problem, ctx.sizes, ctx.parameters, ctx.device = problem, sizes[0], parameters, y0.device
        ctx.save_for_backward(y0, progress.y.detach(), z, travelled, progress.status, *parameters)
        found.append(progress)
        error = progress.error.to(y0.dtype)
        ctx.mark_non_differentiable(error)
        return error, marked(progress)

    @staticmethod
    @first_derivative_only
    @without_autocast
    def backward(ctx: Any, of_error: Tensor | None, of_y: Tensor) -> tuple[Tensor | None, ...]:
        y0, y, z, travelled, status = ctx.saved_tensors[:5]  # refuses if y0 or a weight was changed in place
        check_scope(ctx.problem, y0, ctx.parameters, ctx.frozen)
        failed = like_state(failures(status), y).bool()
        bar_y, bar_z = torch.where(failed, 0.0, of_y), torch.zeros_like(of_y)
        y0, y, z = (torch.where(failed, 0.0, state) for state in (y0, y, z))
        wanted = asked_for(ctx, ctx.parameters)
        gradients: list[Tensor | None] = [None] * len(wanted)
        for h in reversed(ctx.sizes):
            travelled = travelled - h
            signed, t = ctx.problem.sign * h, ctx.problem.time(travelled)
            y, z, bar_y, bar_z, new = _back(ctx.problem.field, t, signed, (y, z), (bar_y, bar_z), wanted)
            gradients = [add(total, part) for total, part in zip(gradients, new, strict=True)]
        _require_reconstruction(torch.where(failed, 0.0, y), y0)
        by_parameter = dict(zip(map(id, wanted), gradients, strict=True))
        return None, None, None, bar_y + bar_z, *[by_parameter.get(id(p)) for p in ctx.parameters]


def reconstruction_error(start: Tensor, reconstructed: Tensor) -> float:
    """Return the largest RMS difference of an image from its start, relative to the RMS of the start."""
    return float((rms(reconstructed - start) / rms(start).clamp_min(1e-30)).max())


def _require_reconstruction(reconstructed: Tensor, start: Tensor) -> None:
    error = reconstruction_error(start, reconstructed)
    _log.debug("reversible solve: start reconstructed to a relative error of %.1e", error)
    if not error <= _LARGEST_ERROR:
        raise SolveError(
            f"Going backwards the reversible solve missed its start by {error:.1e} of its size, expected at most "
            f"{_LARGEST_ERROR:g}, so its gradient would be wrong. Take fewer steps, solve in float64, or use another method."
        )


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
    slope, second = evaluate(field, t + h / 2, x + size / 2 * slope, keep)
    return size * slope, first + second


def _pull_back_increment(
    kept: Sequence[Kept], h: PerImage, cotangent: Tensor, parameters: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor | None]]:
    size = like_state(h, cotangent)
    of_middle, *second = pull_back_slope(kept[1], size * cotangent, parameters)
    of_start, *first = pull_back_slope(kept[0], size / 2 * of_middle, parameters)
    return of_middle + of_start, [add(a, b) for a, b in zip(first, second, strict=True)]
