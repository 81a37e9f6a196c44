"""What an attack may know of a model: a function from images to logits, ours or anybody's.

Nothing here knows how the function is computed. A logit that is not a number is a failed computation, never a class.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor, nn

from nodestill.shapes import Images, Labels, Logits

LogitsFn = Callable[[Images], Logits]

FAILED = -1  # the prediction for an image whose logits are not finite: equal to no label


class Subject(NamedTuple):
    """A model under attack. Only `logits` is needed; what else is known lets an attack cost less and an audit see more."""

    logits: LogitsFn  # as deployed and deterministic; everything is scored on this. A failed image gets NaN, no exception
    gradient_paths: Mapping[str, LogitsFn] = MappingProxyType({})  # other ways to compute the same function
    evaluations: Callable[[Images], Int[Tensor, " batch"]] | None = None  # calls of f per image (NFE)
    batch_independent: bool = False  # False: no image may leave its batch, because the others' logits would change
    replay: Callable[[Images], LogitsFn] | None = None  # of clean images: the same function along the steps of their solve
    reference: Callable[[Images], LogitsFn] | None = None  # likewise, computed in float64
    horizon_rescaled: LogitsFn | None = None  # the same function with horizon 1 and f multiplied by the horizon
    effort: Callable[[Images], Float[Tensor, "batch 1"]] | None = None  # what the solver's error control sees; differentiable
    max_steps: int | None = None  # of one solve; 0: nothing is solved; None: no limit, or no solver
    module: nn.Module | None = None  # to look at, never to call


GAVE_UP = ("underflow in dt", "max_num_steps exceeded", "non-finite values in state")  # what torchdiffeq asserts of a solve


def wrong(subject: Subject, images: Images, labels: Labels) -> Bool[Tensor, " batch"]:
    """Return which images the model gets wrong as deployed; logits that are not finite are wrong."""
    with torch.no_grad():
        return predictions(subject.logits(images)) != labels


def predictions(logits: Logits) -> Int64[Tensor, " batch"]:
    """Return the class with the largest logit per image, or `FAILED` (-1) where any logit is not finite.

    A plain argmax would answer with a class for NaN, so that images of that class would count as robust.

    Args:
        logits: Any floats, shape (batch, classes).

    Returns:
        Integers in -1 ... classes - 1, shape (batch,).
    """
    return torch.where(torch.isfinite(logits).all(1), logits.argmax(1), FAILED)
