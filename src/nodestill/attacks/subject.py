"""What an attack may know of a model: a function from images to logits, ours or anybody's.

Nothing here knows how the function is computed. A logit that is not a number is a failed computation, never a class.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from jaxtyping import Int, Int64
from torch import Tensor

from nodestill.shapes import Images, Logits

LogitsFn = Callable[[Images], Logits]

FAILED = -1  # the prediction for an image whose logits are not finite: equal to no label


class Subject(NamedTuple):
    """A model under attack."""

    logits: LogitsFn  # as deployed and deterministic; everything is scored on this. A failed image gets NaN, no exception
    gradient_paths: Mapping[str, LogitsFn] = MappingProxyType({})  # other ways to compute the same function
    evaluations: Callable[[Images], Int[Tensor, " batch"]] | None = None  # calls of f per image (NFE)
    batch_independent: bool = False  # False: no image may leave its batch, because the others' logits would change


def predictions(logits: Logits) -> Int64[Tensor, " batch"]:
    """Return the class with the largest logit per image, or `FAILED` (-1) where any logit is not finite.

    A plain argmax would answer with a class for NaN, so that images of that class would count as robust.

    Args:
        logits: Any floats, shape (batch, classes).

    Returns:
        Integers in -1 ... classes - 1, shape (batch,).
    """
    return torch.where(torch.isfinite(logits).all(1), logits.argmax(1), FAILED)
