"""Random crop, horizontal flip and cut-out of a whole batch at once.

The view of an image is a function of (seed, index, view) alone, so the same key makes the same view again, in any
batch, in any order and after any restart. Works on uint8 pixels and knows nothing of labels.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from nodestill.data.keyed import Stream, further_bits, integers_below, keyed_bits
from nodestill.errors import InputError

_DRAWS = 5  # per image and view: crop row, crop column, flip, cut-out row, cut-out column; append new ones at the end


@dataclass(frozen=True)
class Augment:
    """What is done to a training image. The default does nothing.

    Args:
        crop_padding: Pixels added on each side before a crop of the old size is taken at random, >= 0; black.
        flip: Whether half of the views are mirrored left to right. Not for digits: their mirror images mean nothing.
        cutout: Side in pixels, >= 0, of a black square around a random centre, cut off at the border.
        reflect: Whether the added pixels mirror the picture at its border instead of being black.
        alternate: Whether a flipped image is flipped in every second view, instead of at random: no two views in a row are
            equal, and two of them show all there is.

    Raises:
        InputError: If a size is negative.
    """

    crop_padding: int = 0
    flip: bool = False
    cutout: int = 0
    reflect: bool = field(default=False, metadata={"later": True})
    alternate: bool = field(default=False, metadata={"later": True})

    def __post_init__(self) -> None:
        if self.crop_padding < 0 or self.cutout < 0:
            raise InputError(
                f"crop_padding and cutout must be at least 0, got {self.crop_padding} and {self.cutout}. 0 means none."
            )


def augmented(
    images: UInt8[Tensor, "batch 3 height width"],
    index: Int64[Tensor, " batch"],
    view: Int64[Tensor, " batch"],
    augment: Augment,
    *,
    seed: int,
) -> UInt8[Tensor, "batch 3 height width"]:
    """Return one random view of each image.

    Crop first, then flip, then cut-out. The three are drawn separately: leaving one out does not change the others.

    Args:
        images: The images as stored, 0 … 255.
        index: Position of each image in its image set.
        view: Which view of the image, one key per image.
        augment: What to do.
        seed: Any integer.

    Returns:
        New images of the same shape, or `images` itself where there is nothing to do.

    Raises:
        InputError: If a margin that mirrors is as wide as the images.
    """
    draws = further_bits(keyed_bits(seed, Stream.VIEW, index, view), _DRAWS)
    height, width = images.shape[2:]
    if augment.reflect and augment.crop_padding >= min(height, width):
        raise InputError(
            f"A margin of {augment.crop_padding} pixels cannot mirror images of {height} x {width}. "
            "Choose a smaller crop_padding."
        )
    if augment.crop_padding or augment.flip:
        offsets = integers_below(draws[:, :2], 2 * augment.crop_padding + 1)
        flips = _flips(draws[:, 2], index, view, augment, seed)
        images = _cropped(images, offsets, flips, padding=augment.crop_padding, reflect=augment.reflect)
    if augment.cutout:
        rows, columns = integers_below(draws[:, 3], height), integers_below(draws[:, 4], width)
        inside = _near(rows, height, augment.cutout)[:, :, None] & _near(columns, width, augment.cutout)[:, None, :]
        images = images.masked_fill(inside[:, None], 0)
    return images


def _flips(
    bits: Int64[Tensor, " batch"], index: Int64[Tensor, " batch"], view: Int64[Tensor, " batch"], augment: Augment, seed: int
) -> Bool[Tensor, " batch"]:
    """Mark the views that are mirrored: by their own bits, or by turns from a start that belongs to the image."""
    if augment.alternate:
        bits = further_bits(keyed_bits(seed, Stream.VIEW, index, torch.zeros_like(view)), _DRAWS)[:, 2]
    turns = view if augment.alternate else 0
    return ((integers_below(bits, 2) + turns) % 2 == 1) & augment.flip


def _cropped(
    images: UInt8[Tensor, "batch 3 height width"],
    offsets: Int64[Tensor, "batch 2"],
    flips: Bool[Tensor, " batch"],
    *,
    padding: int,
    reflect: bool,
) -> UInt8[Tensor, "batch 3 height width"]:
    """Take the crop that starts at (row, column) `offsets` of the padded image, mirrored where `flips`."""
    batch, channels, height, width = images.shape
    across = torch.arange(width, device=images.device)
    rows = offsets[:, :1] + torch.arange(height, device=images.device)
    columns = offsets[:, 1:] + torch.where(flips[:, None], width - 1 - across, across)
    if reflect:
        rows, columns = _reflected(rows - padding, height), _reflected(columns - padding, width)
    else:
        images = F.pad(images, (padding, padding, padding, padding))
    # One flat gather does crop and flip: 0.25 ms for 128 images of 32×32, against 0.57 ms by indexing an unfolded view.
    places = (rows[:, :, None] * images.shape[3] + columns[:, None, :]).view(batch, 1, height * width)
    return images.flatten(2).gather(2, places.expand(-1, channels, -1)).view(batch, channels, height, width)


def _reflected(places: Int64[Tensor, "batch {size}"], size: int) -> Int64[Tensor, "batch {size}"]:
    """Map places up to `size` - 1 beyond either border to those that they mirror there; the border is not repeated."""
    return size - 1 - (size - 1 - places.abs()).abs()


def _near(centres: Int64[Tensor, " batch"], size: int, side: int) -> Bool[Tensor, "batch {size}"]:
    """Mark the positions 0 … size − 1 that lie within a segment of length `side` around each centre."""
    distance = torch.arange(size, device=centres.device) - centres[:, None] + side // 2
    return (distance >= 0) & (distance < side)
