"""One Runge-Kutta step, forward and pulled back. Pure: no loop, no records.

The slopes of a step are rows of one matrix, so that every weighted sum of them is one matrix-vector product, which reads each
slope once. The derivative of a step is written out (the transposed tableau); automatic differentiation sees f alone.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from nodestill.ode.field import Field, PerImage, State, like_state
from nodestill.ode.tableaus import Tableau, column, weights


class Kept(NamedTuple):
    """One evaluation of f with what its derivative needs: where it was taken, as a leaf, and what came out."""

    y: Tensor
    slope: Tensor


class Trial(NamedTuple):
    """A step that was tried, not yet accepted."""

    y_next: Tensor
    slope_next: Tensor  # f(t + h, y_next) for a method that reuses it; else the last stage
    error: Tensor  # the error estimate, shaped like y; empty without one
    kept: tuple[Kept, ...]  # one per stage after the first if asked for, else empty


class Slopes:
    """The slopes of a step, as rows of one matrix in the memory layout of the state."""

    def __init__(self, like: State, count: int) -> None:
        self.rows = like.new_empty((count, like.numel()))
        self.shape, self.strides = like.shape, like.stride()

    def put(self, row: int, slope: Tensor) -> None:
        """Store a slope, converting it to the dtype of the state."""
        self.rows[row].as_strided(self.shape, self.strides).copy_(slope)

    def total(self, coefficients: Sequence[Fraction], first: int = 0) -> State:
        """Return the weighted sum of the rows from `first` on, shaped like the state."""
        rows = self.rows[first : first + len(coefficients)]
        row = weights(tuple(coefficients), rows.dtype, rows.device)
        return torch.mv(rows.t(), row).as_strided(self.shape, self.strides)


class FusedSlopes:
    """The same for a compiler: it joins the sums itself, and forbids writing through views."""

    def __init__(self, like: State) -> None:
        self.rows: dict[int, Tensor] = {}
        self.dtype = like.dtype

    def put(self, row: int, slope: Tensor) -> None:
        """Store a slope, converting it to the dtype of the state."""
        self.rows[row] = slope.to(self.dtype)

    def total(self, coefficients: Sequence[Fraction], first: int = 0) -> State:
        """Return the weighted sum of the rows from `first` on."""
        one, *others = [float(c) * self.rows[first + i] for i, c in enumerate(coefficients) if c]
        return sum(others, start=one)


def evaluate(field: Field, t: PerImage, y: State, keep: bool, share: float | None = None) -> tuple[Tensor, tuple[Kept, ...]]:
    """Evaluate f; with `keep`, also keep what its derivative needs."""
    if not keep:
        return field(t, y, share), ()
    leaf = y.detach().requires_grad_()
    with torch.enable_grad():
        try:
            slope = field(t, leaf, share)
        except RuntimeError as error:
            if "leaf Variable that requires grad" in str(error):
                field(t, leaf.clone())  # torch refuses a write into a leaf, into this a write is counted
            raise
    return slope.detach(), (Kept(leaf, slope),)


def take_step(field: Field, tableau: Tableau, t: PerImage, h: PerImage, y: State, slope: Tensor, *, keep: bool) -> Trial:
    """Take one explicit Runge-Kutta step of size h (negative backwards) from (t, y), where f is already known as `slope`.

    A tableau without error weights stops at the stages that the solution needs.

    Source:
        Butcher 2016, Numerical Methods for Ordinary Differential Equations, eqs. 232a-b.
    """
    slopes = FusedSlopes(y) if torch.compiler.is_compiling() else Slopes(y, tableau.stages)
    slopes.put(0, slope)
    size, y_next = like_state(h, y), y
    kept: tuple[Kept, ...] = ()
    for i in range(1, tableau.stages):
        y_next = advance(y, slopes, tableau.a[i], size)
        slope, new = evaluate(field, t + float(tableau.c[i]) * h, y_next, keep, tableau.share_to_compensate(i))
        slopes.put(i, slope)
        kept += new
    if not tableau.reuses_last:
        y_next = advance(y, slopes, tableau.b, size)
    error = slopes.total(tableau.error).mul_(size) if tableau.error else y.new_empty(0)
    return Trial(y_next, slope, error, kept)


def advance(y: State, slopes: Slopes | FusedSlopes, row: Sequence[Fraction], size: Tensor) -> State:
    """Return y + size * (weighted sum of the slopes)."""
    return slopes.total(row).mul_(size).add_(y)


def pull_back_step(
    kept: Sequence[Kept],
    tableau: Tableau,
    h: PerImage,
    cotangent: State,
    of_error: PerImage | None,
    parameters: Sequence[Tensor],
) -> tuple[State, list[Tensor | None]]:
    """Pull a cotangent of y_next back to y and to the parameters of f: the transposed step.

    mu_i = J(y_i)^T [h (b_i lambda + e_i nu + sum_{j > i} a_ji mu_j)],  i = s ... 1;   lambda <- lambda + sum_i mu_i

    Args:
        kept: The evaluations of the step: those that the solution needs, or all of them if `of_error` is given.
        tableau: The method that took the step.
        h: Signed step size of each image.
        cotangent: lambda, the gradient with respect to y_next.
        of_error: Gradient with respect to the RMS of each image's error estimate (it makes nu); None if there is none.
        parameters: Tensors inside f whose gradient is wanted; may be empty.

    Returns:
        The gradient with respect to y, and one gradient (or None, if f does not use it) for each parameter.

    Source:
        Hager 2000, "Runge-Kutta methods in optimal control and the transformed adjoint system", section 2.
    """
    size = like_state(h, cotangent)
    gradients: list[Tensor | None] = [None] * len(parameters)
    nu = None if of_error is None else _error_cotangent(kept, tableau, size, of_error)
    pulled = Slopes(cotangent, len(kept))
    for i in reversed(range(len(kept))):
        seed = cotangent * float(tableau.b[i])
        if i + 1 < len(kept):
            seed += pulled.total(column(tableau, i, len(kept)), first=i + 1)
        if nu is not None:
            seed += nu * float(tableau.error[i])
        mu, of_parameters = pull_back_slope(kept[i], seed.mul_(size), parameters)
        pulled.put(i, mu)
        gradients = [add(total, new) for total, new in zip(gradients, of_parameters, strict=True)]
    return cotangent + pulled.total([Fraction(1)] * len(kept)), gradients


def _error_cotangent(kept: Sequence[Kept], tableau: Tableau, size: Tensor, of_error: PerImage) -> State:
    slopes = Slopes(kept[0].y, len(kept))
    for i, evaluation in enumerate(kept):
        slopes.put(i, evaluation.slope.detach())
    error = slopes.total(tableau.error).mul_(size).detach()
    smallest = torch.finfo(error.dtype).tiny ** 0.5  # below it squares underflow; an error of zero has gradient zero
    count = error.numel() / max(len(error), 1)
    return error / like_state(rms(error).clamp_min(smallest), error) * like_state(of_error / count, error)


def add(total: Tensor | None, new: Tensor | None) -> Tensor | None:
    """Return the sum of two gradients, where None is a gradient of zero."""
    if total is None or new is None:
        return new if total is None else total
    return total + new


def rms(value: State) -> PerImage:
    """Return the root mean square over each image."""
    norm = torch.linalg.vector_norm(value, dim=tuple(range(1, value.dim())))  # over the dimensions as they lie in memory
    return norm.double() / (max(value.numel(), 1) / max(len(value), 1)) ** 0.5


def all_finite(value: State) -> Bool[Tensor, " batch"]:
    """Return which images hold finite numbers alone. Their root mean square may overflow all the same."""
    return value.isfinite().flatten(1).all(1)


def pull_back_slope(kept: Kept, seed: State, parameters: Sequence[Tensor]) -> tuple[State, Sequence[Tensor | None]]:
    """Pull a cotangent of f(t, y) back to y and to the parameters; what f does not use has no gradient (y: zero)."""
    if not kept.slope.requires_grad:
        return torch.zeros_like(kept.y), [None] * len(parameters)
    of_y, *found = torch.autograd.grad(kept.slope, [kept.y, *parameters], seed.to(kept.slope.dtype), allow_unused=True)
    return torch.zeros_like(kept.y) if of_y is None else of_y, found
