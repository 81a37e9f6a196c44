"""Positions of an attack that moves by whole steps of 1/255, held exactly.

Adding 1/255 twenty times in float32 is not adding 20/255, so a clip that should not act can change a last bit. Here a
position is an integer number of units of 1/255/2^k, stored in a float that holds such integers exactly. Steps and clips
are then exact: attacks at different radii share bit for bit the steps that they have in common, and an image made from
bytes stays one: every pixel is n/255, correctly rounded.
"""

from dataclasses import dataclass
from math import log2

import torch
from jaxtyping import Float
from torch import Tensor

from nodestill.shapes import Images

_SPARE_BITS = 9  # 8 for the 255 steps of the range, 1 so that rounding n/255 to a float never reaches the next unit


@dataclass(frozen=True)
class Lattice:
    """Clean images and their exact positions.

    Args:
        images: Clean images in [0, 1], float32 or float64, shape (batch, 3, height, width).
        origin: Their positions in units, whole numbers in 0 ... 255 `unit`.
        unit: Units per 1/255, a power of two.
    """

    images: Images
    origin: Float[Tensor, "batch 3 height width"]
    unit: float

    @classmethod
    def around(cls, images: Images) -> "Lattice":
        """Place images on the lattice; pixels not made of bytes are rounded by about their machine epsilon."""
        unit = 2.0 ** (-log2(torch.finfo(images.dtype).eps) - _SPARE_BITS)  # float32: 2^14
        return cls(images, (images * (255 * unit)).round(), unit)

    def move(self, position: Tensor, steps_255: Tensor, eps_255: int) -> Float[Tensor, "batch 3 height width"]:
        """Move by whole multiples of 1/255 and clip to the radius and to [0, 1]; exact.

        Args:
            position: In units, shape of the images.
            steps_255: Whole numbers of 1/255 to move by, shape of the images.
            eps_255: Radius in 1/255, 0 ... 255.

        Returns:
            The new position in units.
        """
        reach = eps_255 * self.unit
        low, high = (self.origin - reach).clamp(min=0), (self.origin + reach).clamp(max=255 * self.unit)
        return torch.clamp(position + steps_255 * self.unit, low, high)

    def at(self, position: Tensor) -> Images:
        """Return the images at a position in units; a pixel that has not moved keeps its bits."""
        whole = torch.full_like(self.origin[:1, :1, :1, :1], 255 * self.unit)  # tensor: a GPU multiplies by 1/scalar
        return torch.where(position == self.origin, self.images, position / whole)
