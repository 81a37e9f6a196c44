"""The first layer of fast networks: a frozen convolution uncorrelated over the patches of the training images.

Neighbouring pixels are nearly equal, so a plain first layer spends its first epochs on learning to take differences.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nodestill.errors import InputError

_SIZE = 2
_VALUES = 3 * _SIZE**2
WHITENED_CHANNELS = 2 * _VALUES
_FLOOR = 5e-4  # added to the variances: directions of less variance than this are mostly noise


class Whitening(nn.Conv2d):
    """A 2x2 convolution to 24 channels: the principal components of patches at variance 1, and their negatives.

    Its weights are zero until `learn` is called; they are never trained.

    Source:
        Page 2019, "How to train your ResNet", part 8, and Jordan 2024, "94% on CIFAR-10 in 3.29 seconds", section 3.2.
        Differs: no trainable bias.
    """

    def __init__(self) -> None:
        super().__init__(3, WHITENED_CHANNELS, _SIZE, bias=False)
        nn.init.zeros_(self.weight)
        self.weight.requires_grad_(False)

    @torch.no_grad()
    def learn(self, images: Float[Tensor, "batch 3 height width"]) -> None:
        """Set the weights from images as this layer will see them, that is, normalised.

        Raises:
            InputError: If the images are smaller than a patch.
        """
        if min(images.shape[2:]) < _SIZE:
            raise InputError(f"Whitening needs images of at least {_SIZE} x {_SIZE} pixels, got {tuple(images.shape)}.")
        patches = images.unfold(2, _SIZE, 1).unfold(3, _SIZE, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, _VALUES).double()
        variances, directions = torch.linalg.eigh(patches.T @ patches / len(patches))
        components = (directions / (variances + _FLOOR).sqrt()).T.view(_VALUES, 3, _SIZE, _SIZE)
        self.weight.copy_(torch.cat([components, -components]))
