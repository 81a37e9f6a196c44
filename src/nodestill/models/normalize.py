"""Normalisation of the colour channels, as the first layer of every model: images are in [0, 1] outside it."""

from collections.abc import Sequence

import torch
from torch import nn

from nodestill.errors import InputError
from nodestill.shapes import Images

NO_MEAN = (0.0, 0.0, 0.0)
NO_STD = (1.0, 1.0, 1.0)


class Normalize(nn.Module):
    """Subtract a mean from each colour channel and divide by a deviation.

    Args:
        mean: Three means, in units of pixels in [0, 1].
        std: Three deviations in the same units, > 0.

    Raises:
        InputError: If there are not three of each, or a deviation is not positive.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != 3 or len(std) != 3:
            raise InputError(f"mean and std need one value per colour, got {len(mean)} and {len(std)}. Give three each.")
        if not all(value > 0 for value in std):
            raise InputError(f"std must be positive, got {tuple(std)}. A channel that never varies may take 1.")
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.get_default_dtype()).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.get_default_dtype()).view(1, 3, 1, 1))

    def forward(self, images: Images) -> Images:
        """Return (images - mean) / std."""
        return (images - self.mean) / self.std
