"""The square attack: random search over squares of one colour, which asks for logits and never for a gradient.

    x ← clip(x + eps r), r = ±1 per channel and column: vertical stripes
    x' ← x, but in one random square clip(x_clean + eps r), r = ±1 per channel; kept if the margin grew

What it finds, no vanishing or wrong gradient can hide. All random numbers are functions of (seed, key, radius, query).
"""

from math import sqrt
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from nodestill.attacks.budget import LinfBudget, project
from nodestill.attacks.gradient import (
    AttackResult,
    require_attackable,
    require_keys,
    score,
)
from nodestill.attacks.losses import margin
from nodestill.attacks.subject import LogitsFn, predictions
from nodestill.data.keyed import Stream, further_bits, integers_below, keyed_bits
from nodestill.shapes import Images, Labels, Logits

_FIRST_SHARE = 0.8  # p: of the pixels, in the first square
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries of 10,000 after which p is halved
_SQUARE = 1003  # key of this attack's numbers; no radius


class _State(NamedTuple):
    images: Images  # of the largest margin so far
    margin: Float[Tensor, " batch"]
    fooled: Bool[Tensor, " batch"]


def square(
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
    budget: LinfBudget,
    *,
    keys: Int64[Tensor, " batch"],
    seed: int = 0,
) -> AttackResult:
    """Perturb images by random search over squares; the equations are at the head of this module.

    The first of the `steps` queries is of the stripes. Every image has its own squares. `step_255` of the budget is not
    used. An image that is misclassified stays as it is.

    Args:
        logits_fn: Maps images in [0, 1] to logits, differentiably or not; must be deterministic.
        images: Clean images in [0, 1], float32 or float64, shape (batch, 3, height, width).
        labels: True classes, 0 ... classes - 1, shape (batch,).
        budget: Radius in 1/255 and number of queries; 5,000 are usual.
        keys: One integer per image, its position in the image set, shape (batch,).
        seed: Seed of all random numbers, any integer; counts modulo 2^64.

    Returns:
        Per image the first query that is misclassified, else the one of the largest margin, and how they fared.

    Raises:
        InputError: If images leave [0, 1], or labels or keys do not match the batch.

    Source:
        Andriushchenko et al. 2020, "Square Attack: a query-efficient black-box adversarial attack via random search",
        Algorithms 1 and 2; p = 0.8 as in Croce and Hein 2020, with the schedule stretched to the number of queries.
        Unlike the authors' code, squares reach the last row and column, as in the paper, and a square that changes
        nothing is not drawn again.
    """
    require_attackable(images, labels)
    require_keys(keys, images)
    with torch.no_grad():
        found = _search(logits_fn, images, labels, budget, keys, seed)
    return score(logits_fn, images, found, labels, budget, torch.zeros_like(labels), 0)


def _search(
    logits_fn: LogitsFn, images: Images, labels: Labels, budget: LinfBudget, keys: Int64[Tensor, " batch"], seed: int
) -> Images:
    height, width = images.shape[2:]
    nothing = torch.full_like(images[:, 0, 0, 0], -torch.inf)
    bits = keyed_bits(seed, Stream.ATTACK, keys, budget.eps_255, _SQUARE, 0)
    candidate = _shifted(images, _signs(further_bits(bits, 3 * width)).view(-1, 3, 1, width), budget.eps)
    state = _State(candidate, nothing, torch.zeros_like(labels, dtype=torch.bool))
    for query in range(1, budget.steps + 1):
        state = _better(state, candidate, logits_fn(candidate), labels)
        if query == budget.steps or bool(state.fooled.all()):
            break
        bits = keyed_bits(seed, Stream.ATTACK, keys, budget.eps_255, _SQUARE, query)
        inside, signs = _drawn(bits, side(query, budget.steps, height, width), height, width)
        candidate = torch.where(inside, _shifted(images, signs, budget.eps), state.images)
        candidate = torch.where(state.fooled[:, None, None, None], state.images, candidate)
    return state.images


def _better(state: _State, candidate: Images, logits: Logits, labels: Labels) -> _State:
    # where an image is fooled already, the candidate is that image
    gained, fooled = margin(logits, labels), predictions(logits) != labels
    taken = fooled | (gained > state.margin)
    images = torch.where(taken[:, None, None, None], candidate, state.images)
    return _State(images, torch.where(taken, gained, state.margin), state.fooled | fooled)


def side(query: int, queries: int, height: int, width: int) -> int:
    """Return the side of the squares: its area starts at 0.8 of the image and is halved nine times, at least one pixel.

    Args:
        query: 1 ... queries - 1.
        queries: How many there are, which stretches the schedule, >= 1.
        height: Of the images, in pixels.
        width: Of the images, in pixels.
    """
    halvings = sum(10_000 * query // queries > at for at in _HALVINGS)
    return min(max(round(sqrt(_FIRST_SHARE / 2**halvings * height * width)), 1), height, width)


def _drawn(
    bits: Int64[Tensor, " batch"], length: int, height: int, width: int
) -> tuple[Bool[Tensor, "batch 1 height width"], Float[Tensor, "batch 3 1 1"]]:
    """Draw a square of a given side anywhere in the image, and a sign for each channel."""
    columns = further_bits(bits, 5)
    rows = _run(integers_below(columns[:, 0], height - length + 1), length, height)
    across = _run(integers_below(columns[:, 1], width - length + 1), length, width)
    return (rows[:, :, None] & across[:, None, :])[:, None], _signs(columns[:, 2:])[:, :, None, None]


def _run(first: Int64[Tensor, " batch"], length: int, count: int) -> Bool[Tensor, "batch count"]:
    offset = torch.arange(count, device=first.device) - first[:, None]
    return (offset >= 0) & (offset < length)


def _signs(bits: Int64[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return torch.where(bits < 0, -1.0, 1.0)


def _shifted(images: Images, signs: Tensor, eps: float) -> Images:
    return project(images + eps * signs.to(images), images, eps)
