"""Whether a step is accepted, and how large the next one is to be."""

from typing import NamedTuple

import torch
from torch import Tensor

from nodestill.ode.field import Field, PerImage, State, like_state
from nodestill.ode.solver import Solver, StepControl
from nodestill.ode.step import Trial, rms, take_step
from nodestill.ode.tableaus import Tableau

_SAFETY, _SHRINK, _GROW = 0.9, 0.2, 10.0  # Hairer, Norsett, Wanner, Solving ODEs I, 2nd ed. 1993, section II.4


class Judged(NamedTuple):
    """A step that was tried, and what its error estimate says."""

    trial: Trial  # its error estimate is left out
    ratio: PerImage  # the error estimate in units of the tolerance
    error: PerImage  # the RMS of the error estimate, in units of y


def judged_step(
    field: Field, tableau: Tableau, solver: Solver, t: PerImage, h: PerImage, y: State, slope: Tensor, *, keep: bool
) -> Judged:
    """Take a step (`take_step`) and measure its error. One function, so that a compiler makes one graph of both."""
    trial = take_step(field, tableau, t, h, y, slope, keep=keep)
    error = rms(trial.error)
    return Judged(trial._replace(error=y.new_empty(0)), error_ratio(trial, y, solver), error)


def error_ratio(trial: Trial, y: State, solver: Solver) -> PerImage:
    """Return each image's error estimate in units of the tolerance (<= 1 is acceptable), RMS over the image.

    Source:
        Hairer, Norsett, Wanner 1993, Solving ODEs I, eqs. II.4.10-4.11.
    """
    scale = torch.maximum(y.abs(), trial.y_next.abs()).mul_(solver.rtol).add_(solver.atol)
    return rms(torch.div(trial.error, scale, out=scale))


def over_batch(norm: PerImage, solver: Solver, known: Tensor | None = None) -> PerImage:
    """Return what decides for each image: its own norm, or the RMS over the batch (of those `known`) if steps are shared."""
    if solver.step_control is not StepControl.SHARED:
        return norm
    if known is None:
        return norm.square().mean().sqrt().expand_as(norm)
    return (torch.where(known, norm, 0.0).square().sum() / known.sum().clamp_min(1)).sqrt().expand_as(norm)


def next_size(h: PerImage, ratio: PerImage, order: int) -> PerImage:
    """Return the step size to try next: h * 0.9 * ratio^(-1/order), shrunk to 0.2 h or grown to 10 h at most.

    Source:
        Hairer, Norsett, Wanner 1993, eq. II.4.13. A ratio that is not finite shrinks as far as allowed.
    """
    factor = _SAFETY * ratio.clamp_min(1e-10).pow(-1 / order)
    return on_grid(h * torch.nan_to_num(factor, nan=_SHRINK).clamp(_SHRINK, _GROW))


def on_grid(size: PerImage) -> PerImage:
    """Round a step size down to one of sixteen in each factor of two.

    A kernel that rounds differently at another batch size moves the error estimate, and with it every later step size, by a
    little; with ReLUs in f a long solve makes much of that. On the grid the sizes are the same bit for bit, but for the few
    that the little carries over a grid point.
    """
    mantissa, exponent = torch.frexp(size)
    return torch.ldexp(mantissa.mul(32).floor().div(32), exponent)


def probe_first_step(field: Field, t: PerImage, y: State, slope: Tensor, solver: Solver, order: int, sign: float) -> PerImage:
    """Choose a first step size from one more evaluation of f, by the size of y' and y''.

    Source:
        Hairer, Norsett, Wanner 1993, section II.4, "Starting step size"; per image, or over the batch when it is shared.
    """
    scale = y.abs().mul_(solver.rtol).add_(solver.atol)
    size_y, size_f = rms(y / scale), rms(slope / scale)
    known = torch.isfinite(size_y) & torch.isfinite(size_f)  # who failed at the start has no say in a shared step
    size_y, size_f = over_batch(size_y, solver, known), over_batch(size_f, solver, known)
    guess = 0.01 * size_y / size_f
    guess = torch.where((size_y >= 1e-5) & (size_f >= 1e-5) & (guess > 0), guess, 1e-6)
    slope_next = field(t + sign * guess, torch.addcmul(y, slope.to(y.dtype), like_state(sign * guess, y)))
    curvature = over_batch(rms((slope_next - slope) / scale), solver, known) / guess
    steepest = torch.maximum(size_f, curvature)
    size = torch.where(steepest <= 1e-15, (guess * 1e-3).clamp_min(1e-6), (0.01 / steepest).pow(1 / order))
    size = torch.where(size > 0, size, guess * 1e-3)  # where f is not finite at the probe: let the step control find out
    return on_grid(torch.minimum(100 * guess, size))
