"""Auto-PGD: gradient ascent with momentum that finds its own step size, image by image.

    z ← P(x_k + η sign ∇f(x_k))           (P: to the radius and to [0, 1])
    x_(k+1) ← P(x_k + α (z - x_k) + (1 - α) (x_k - x_(k-1)))        (α = 3/4; 1 in the first step)

η starts at 2 eps. It is halved at a checkpoint, and the image goes back to the best point so far, if fewer than 3/4 of the
steps since the last checkpoint raised the loss f, or if the best loss has not grown since and η was not halved then. The
checkpoints are at 22 %, 41 %, 57 %, ... of the steps. An image that is misclassified stays where it is.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from nodestill.attacks.budget import LinfBudget, project
from nodestill.attacks.gradient import (
    Ascent,
    AttackResult,
    loss_gradient,
    require_attackable,
    require_keys,
    score,
)
from nodestill.attacks.losses import AttackLoss, cross_entropy, dlr_towards, likely_targets
from nodestill.attacks.random_start import keyed_uniform
from nodestill.attacks.subject import LogitsFn, predictions
from nodestill.data.keyed import Stream, keyed_bits
from nodestill.errors import InputError
from nodestill.shapes import Images, Labels

_MOMENTUM = 0.75  # α
_RHO = 0.75  # share of the steps that must raise the loss for η to stay
_UNTARGETED, _TARGETED = 1001, 1002  # keys of the starts; no radii, so that PGD has others


class _Point(NamedTuple):
    images: Images
    loss: Float[Tensor, " batch"]
    gradient: Images


class _State(NamedTuple):
    now: _Point  # x_k; until it is looked at, with loss and gradient of x_(k-1)
    previous: Images  # x_(k-1)
    best: _Point  # of the highest loss so far
    step: Float[Tensor, "batch 1 1 1"]  # η
    rises: Int64[Tensor, " batch"]  # steps since the last checkpoint that raised the loss
    checked: Float[Tensor, " batch"]  # best loss at the last checkpoint
    halved: Bool[Tensor, " batch"]  # whether η was halved there
    fooled: Bool[Tensor, " batch"]  # now or at any earlier point: such an image has stayed there
    bad_gradients: Int64[Tensor, " batch"]


def apgd(
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
    budget: LinfBudget,
    *,
    keys: Int64[Tensor, " batch"],
    seed: int = 0,
    loss: AttackLoss = cross_entropy,
    restart: int = 0,
) -> AttackResult:
    """Perturb images by Auto-PGD; the equations are at the head of this module.

    The start is uniform in the box, stretched until it touches a face, and a function of (seed, key, radius, restart)
    alone. `step_255` of the budget is not used. `steps` iterations take as many gradients; none is taken any more once
    all images of the batch are fooled, so `gradient_calls` alone depends on the batch.

    Args:
        logits_fn: Maps images in [0, 1] to logits; must be deterministic.
        images: Clean images in [0, 1], float32 or float64, shape (batch, 3, height, width).
        labels: True classes, 0 ... classes - 1, shape (batch,).
        budget: Radius in 1/255 and number of steps; 100 are usual.
        keys: One integer per image, its position in the image set, shape (batch,).
        seed: Seed of the starts, any integer; counts modulo 2^64.
        loss: What is to grow; `cross_entropy` and `dlr` are usual.
        restart: Any integer; another one gives other starts.

    Returns:
        Per image the first iterate that is misclassified, else the one of the highest loss, and how they fared.

    Raises:
        InputError: If images leave [0, 1], or labels or keys do not match the batch.

    Source:
        Croce and Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
        attacks", Algorithm 1; the start is that of their code. Differs: the best point replaces the iterate of the
        checkpoint, as in their code, not the next one. Unlike their code, the first step is compared with the start,
        and exactly 3/4 of rising steps suffice, as in the paper.
    """
    _require(images, labels, keys)
    climb = _Climb(logits_fn, images, labels, budget, loss)
    start = _start(images, budget, keys, seed, _UNTARGETED, restart)
    state, calls = climb.run(climb.begin(start, torch.zeros_like(labels, dtype=torch.bool)))
    return score(logits_fn, images, climb.found(state), labels, budget, state.bad_gradients, calls)


def apgd_targeted(
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
    budget: LinfBudget,
    *,
    keys: Int64[Tensor, " batch"],
    seed: int = 0,
    targets: int = 9,
) -> AttackResult:
    """Run Auto-PGD towards each likely wrong class in turn, on the targeted difference of logits ratio.

    The classes are ranked by the logits of the clean image. What counts is misclassification, not arrival at the target.
    An image that is misclassified, clean or in one run, stays as it is in all that follow.

    Args:
        logits_fn: Maps images in [0, 1] to logits of at least four classes; must be deterministic.
        images: Clean images in [0, 1], float32 or float64, shape (batch, 3, height, width).
        labels: True classes, 0 ... classes - 1, shape (batch,).
        budget: Radius in 1/255 and number of steps of each run; 100 are usual.
        keys: One integer per image, its position in the image set, shape (batch,).
        seed: Seed of the starts, any integer; counts modulo 2^64.
        targets: How many runs, >= 1; at most classes - 1 are made.

    Returns:
        Images and how they fared; one that no run fooled is the best point of the last run. `gradient_calls` and
        `bad_gradients` are sums over the runs.

    Raises:
        InputError: If images leave [0, 1], labels or keys do not match the batch, there are fewer than four classes, or
            `targets` is below 1.

    Source:
        Croce and Hein 2020, sections 4.2 and 5.
    """
    _require(images, labels, keys)
    if targets < 1:
        raise InputError(f"targets must be at least 1, got {targets}. 9 is usual for ten classes.")
    with torch.no_grad():
        clean = logits_fn(images)
    found, fooled = images, predictions(clean) != labels
    bad_gradients, calls = torch.zeros_like(labels), 0
    for rank, target in enumerate(likely_targets(clean, labels, targets)):
        climb = _Climb(logits_fn, images, labels, budget, dlr_towards(target))
        start = _where(fooled, found, _start(images, budget, keys, seed, _TARGETED, rank))
        state, made = climb.run(climb.begin(start, fooled))
        found, fooled = climb.found(state), state.fooled
        bad_gradients, calls = bad_gradients + state.bad_gradients, calls + made
    return score(logits_fn, images, found, labels, budget, bad_gradients, calls)


class _Climb(NamedTuple):
    logits_fn: LogitsFn
    images: Images
    labels: Labels
    budget: LinfBudget
    loss: AttackLoss

    def begin(self, start: Images, fooled: Bool[Tensor, " batch"]) -> _State:
        low = torch.full_like(start[:, 0, 0, 0], -torch.inf)
        step = torch.full_like(start[:, :1, :1, :1], 2 * self.budget.eps)
        now, best = _Point(start, -low, torch.zeros_like(start)), _Point(start, low, torch.zeros_like(start))
        none, never = torch.zeros_like(self.labels), torch.zeros_like(fooled)
        return _State(now, start, best, step, none, low, never, fooled, none)

    def run(self, state: _State) -> tuple[_State, int]:
        windows = checkpoints(self.budget.steps)
        for taken in range(self.budget.steps):
            if bool(state.fooled.all()):
                return state, taken
            state = self._seen(state, loss_gradient(self.logits_fn, state.now.images, self.labels, self.loss))
            if taken in windows:
                state = _checked(state, windows[taken])
            state = self._moved(state, 1.0 if taken == 0 else _MOMENTUM)
        return self._seen(state, self._glance(state.now.images)), self.budget.steps

    def found(self, state: _State) -> Images:
        return _where(state.fooled, state.now.images, state.best.images)

    def _glance(self, images: Images) -> Ascent:
        """Look at the last point, from where no step is taken: its gradient is not needed."""
        with torch.no_grad():
            logits = self.logits_fn(images)
            losses = self.loss(logits, self.labels)
        return Ascent(torch.zeros_like(images), torch.zeros_like(self.labels, dtype=torch.bool), losses, logits)

    def _seen(self, state: _State, ascent: Ascent) -> _State:
        now = _Point(state.now.images, ascent.loss, ascent.gradient)
        return state._replace(
            now=now,
            best=_chosen(ascent.loss > state.best.loss, now, state.best),
            rises=state.rises + (ascent.loss > state.now.loss),
            fooled=state.fooled | (predictions(ascent.logits) != self.labels),
            bad_gradients=state.bad_gradients + (ascent.bad & ~state.fooled),
        )

    def _moved(self, state: _State, momentum: float) -> _State:
        x, eps = state.now.images, self.budget.eps
        z = project(x + state.step * state.now.gradient.sign(), self.images, eps)
        moved = project(x + momentum * (z - x) + (1 - momentum) * (x - state.previous), self.images, eps)
        return state._replace(now=state.now._replace(images=_where(state.fooled, x, moved)), previous=x)


def _checked(state: _State, window: int) -> _State:
    stalled = ~state.halved & (state.best.loss <= state.checked)
    halved = ((state.rises < _RHO * window) | stalled) & ~state.fooled
    return state._replace(
        now=_chosen(halved, state.best, state.now),
        step=torch.where(halved[:, None, None, None], state.step / 2, state.step),
        rises=torch.zeros_like(state.rises),
        checked=state.best.loss,
        halved=halved,
    )


def checkpoints(steps: int) -> dict[int, int]:
    """Return the iterations at which the step size is reconsidered, each with the number of steps since the one before.

    p_0 = 0, p_1 = 0.22, p_(j+1) = p_j + max(p_j - p_(j-1) - 0.03, 0.06), at w_j = ceil(p_j steps); in whole percent, so
    that rounding moves none.

    Args:
        steps: Number of steps, >= 0.
    """
    windows, before, percent, stride = {0: 0}, 0, 22, 22
    while percent <= 100:
        at = -(-percent * steps // 100)
        windows.setdefault(at, at - before)
        before, stride = at, max(stride - 3, 6)
        percent += stride
    return windows


def _require(images: Images, labels: Labels, keys: Int64[Tensor, " keys"]) -> None:
    require_attackable(images, labels)
    require_keys(keys, images)


def _start(images: Images, budget: LinfBudget, keys: Int64[Tensor, " batch"], seed: int, *further: int) -> Images:
    numbers = keyed_uniform(keyed_bits(seed, Stream.ATTACK, keys, *further), seed, budget.eps_255, images[0].numel())
    stretched = (numbers / numbers.abs().amax(1, keepdim=True)).view(images.shape).to(images)
    return project(images + budget.eps * stretched, images, budget.eps)


def _chosen(first: Bool[Tensor, " batch"], one: _Point, other: _Point) -> _Point:
    loss = torch.where(first, one.loss, other.loss)
    return _Point(_where(first, one.images, other.images), loss, _where(first, one.gradient, other.gradient))


def _where(first: Bool[Tensor, " batch"], one: Tensor, other: Tensor) -> Tensor:
    return torch.where(first[:, None, None, None], one, other)
