"""The smallest radius at which each image is fooled, found in one run for all radii: the fast minimum-norm attack.

    δ ← clip(δ + α ∇L / ‖∇L‖₂)           (to the image's own radius r and to [0, 1]; L: the margin)
    r ← (1 + γ) (‖δ‖ + |L| / ‖∇L‖₁)       until the image is first misclassified: beyond the boundary of a linear model
    r ← min((1 - γ) r, ‖δ*‖)              where it is misclassified; δ* is the smallest such δ so far
    r ← (1 + γ) r                         where it no longer is

Norms of δ are L-infinity norms. α and γ fall along a cosine. Every radius found is a certificate that the image is not
robust there and beyond; none is a proof that it is robust below.
"""

from math import cos, pi
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from nodestill.attacks.gradient import Ascent, loss_gradient, require_attackable
from nodestill.attacks.losses import margin
from nodestill.attacks.subject import LogitsFn, predictions
from nodestill.errors import InputError
from nodestill.shapes import Images, Labels

_LAST_STEP = 0.01  # of the first step
_LAST_GAMMA = 0.001


class MinimumNormResult(NamedTuple):
    """The closest misclassified images that were found."""

    images: Images  # in [0, 1]; the clean image where none was found
    radius: Float[Tensor, " batch"]  # in 1/255; 0 where the clean image is misclassified, inf where no image was found
    gradient_calls: int  # per image
    bad_gradients: Int64[Tensor, " batch"]  # steps at which this image's gradient was zero or not finite


class _State(NamedTuple):
    position: Images  # x + δ
    radius: Float[Tensor, " batch"]  # r, in pixel units as all norms here
    best: Images
    best_norm: Float[Tensor, " batch"]  # inf until one is found
    bad_gradients: Int64[Tensor, " batch"]


def fast_minimum_norm(
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
    *,
    steps: int = 100,
    first_step: float = 10.0,
    first_gamma: float = 0.05,
) -> MinimumNormResult:
    """Find for each image a misclassified one nearby; the equations are at the head of this module.

    The images are scored once more at the end, as one batch: a radius is finite only if `logits_fn` still errs there.

    Args:
        logits_fn: Maps images in [0, 1] to logits; must be deterministic.
        images: Clean images in [0, 1], float32 or float64, shape (batch, 3, height, width).
        labels: True classes, 0 ... classes - 1, shape (batch,).
        steps: Number of gradients, >= 1. The first one is taken at the clean image.
        first_step: α of the first step, the L2 norm of a move in pixel units, > 0; the last is 1/100 of it.
        first_gamma: γ of the first step, in [0.001, 1); it falls to 0.001.

    Returns:
        Per image the closest misclassified one that was met, and its distance.

    Raises:
        InputError: If images leave [0, 1], labels do not match the batch, or a setting is out of range.

    Source:
        Pintor et al. 2021, "Fast Minimum-norm Adversarial Attacks through Adaptive Norm Constraints", Algorithm 1, without
        an adversarial starting point. The defaults are those of the authors' code, but for α: 10 is what they use for
        L-infinity in their AttackBench. Differs: the first 1 + γ above is 1 in the paper, where r can creep up to the
        boundary and never cross it, as with a concave margin or white pixels. A zero gradient moves nothing and, before
        the first success, opens the radius to all of [0, 1]; the paper leaves it undefined.
    """
    require_attackable(images, labels)
    _require(steps, first_step, first_gamma)
    search = _Search(logits_fn, images, labels)
    state = search.begin()
    for taken in range(steps):
        fall = (1 + cos(pi * taken / steps)) / 2
        step = first_step * (_LAST_STEP + (1 - _LAST_STEP) * fall)
        state = search.advance(state, step, _LAST_GAMMA + (first_gamma - _LAST_GAMMA) * fall)
    return search.result(state, steps)


class _Search(NamedTuple):
    logits_fn: LogitsFn
    images: Images
    labels: Labels

    def begin(self) -> _State:
        nothing = torch.full_like(self.images[:, 0, 0, 0], torch.inf)
        return _State(self.images, nothing, self.images, nothing, torch.zeros_like(self.labels))

    def advance(self, state: _State, step: float, gamma: float) -> _State:
        ascent = loss_gradient(self.logits_fn, state.position, self.labels, margin)
        fooled = predictions(ascent.logits) != self.labels
        norm = linf(state.position - self.images)
        closer = fooled & (norm <= state.best_norm)
        best = torch.where(closer[:, None, None, None], state.position, state.best)
        best_norm = torch.where(closer, norm, state.best_norm)
        radius = _radius(state.radius, best_norm, norm, ascent, fooled, gamma)
        moved = state.position + step * l2_normalized(ascent.gradient)
        return _State(self._within(moved, radius), radius, best, best_norm, state.bad_gradients + ascent.bad)

    def result(self, state: _State, steps: int) -> MinimumNormResult:
        with torch.no_grad():
            verified = predictions(self.logits_fn(state.best)) != self.labels
        images = torch.where(verified[:, None, None, None], state.best, self.images)
        radius = torch.where(verified, 255 * state.best_norm, torch.inf)
        return MinimumNormResult(images, radius, steps, state.bad_gradients)

    def _within(self, moved: Images, radius: Float[Tensor, " batch"]) -> Images:
        reach = radius[:, None, None, None]
        return torch.clamp(moved, (self.images - reach).clamp(min=0), (self.images + reach).clamp(max=1))


def _radius(
    radius: Float[Tensor, " batch"],
    best_norm: Float[Tensor, " batch"],
    norm: Float[Tensor, " batch"],
    ascent: Ascent,
    fooled: Bool[Tensor, " batch"],
    gamma: float,
) -> Float[Tensor, " batch"]:
    slope = ascent.gradient.abs().sum((1, 2, 3))
    to_boundary = torch.where(slope > 0, ascent.loss.abs() / slope, torch.inf).to(norm)
    outside = torch.where(torch.isfinite(best_norm), radius, norm + to_boundary)
    return torch.where(fooled, torch.minimum((1 - gamma) * radius, best_norm), (1 + gamma) * outside)


def linf(images: Images) -> Float[Tensor, " batch"]:
    """Return the largest size of a pixel, per image."""
    return images.abs().amax((1, 2, 3))


def l2_normalized(gradient: Images) -> Images:
    """Divide each image's gradient by its own L2 norm; a zero gradient stays zero, however small others are."""
    peak = linf(gradient)[:, None, None, None]
    scaled = gradient / torch.where(peak > 0, peak, 1)  # first, so that no square can overflow or vanish
    norm = scaled.square().sum((1, 2, 3), keepdim=True).sqrt()
    return scaled / torch.where(norm > 0, norm, 1)


def _require(steps: int, first_step: float, first_gamma: float) -> None:
    if steps < 1:
        raise InputError(f"steps must be at least 1, got {steps}. 100 are usual.")
    if not first_step > 0:
        raise InputError(f"first_step must be positive, got {first_step}. 10 is usual in L-infinity.")
    if not _LAST_GAMMA <= first_gamma < 1:
        raise InputError(f"first_gamma must lie in [0.001, 1), got {first_gamma}. 0.05 is usual.")
