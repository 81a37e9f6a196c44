"""The residual networks for small images of He et al.: the teachers.

Three stages of n blocks each, depth 6n + 2, with 16, 32 and 64 channels. A shortcut is the identity; where a stage halves the
picture it takes every second pixel and pads the missing channels with zeros (option A), so that it has no parameters.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nodestill.errors import InputError
from nodestill.models.head import classification_head
from nodestill.models.normalize import NO_MEAN, NO_STD, Normalize
from nodestill.shapes import Images, Logits


def _conv(channels_in: int, channels_out: int, stride: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_in", nonlinearity="relu")
    return conv


class BasicBlock(nn.Module):
    """relu(shortcut(x) + norm(conv(relu(norm(conv(x)))))), with the parameter-free shortcut of option A.

    Args:
        channels_in: Channels of the input.
        channels_out: Channels of the output, >= `channels_in`, the difference even.
        stride: 1 or 2.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels_in, channels_out, stride)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.conv2 = _conv(channels_out, channels_out, 1)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.stride = stride
        self.padding = (channels_out - channels_in) // 2

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.stride == 1 and self.padding == 0:
            return x
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))

    def forward(self, x: Float[Tensor, "batch c_in h_in w_in"]) -> Float[Tensor, "batch c_out h_out w_out"]:
        """Return the block's output, its picture `stride` times smaller than `x`."""
        residual = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self._shortcut(x) + self.norm2(self.conv2(residual)))


def _stage(channels_in: int, channels_out: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(channels_in, channels_out, stride)
    return nn.Sequential(first, *(BasicBlock(channels_out, channels_out, 1) for _ in range(blocks - 1)))


class ResNet(nn.Module):
    """A residual network; build it with `resnet`.

    Args:
        blocks: Blocks per stage, >= 1.
        num_classes: Classes to tell apart.
        width: Channels of the first stage, even; the others have twice and four times as many.
        normalize: First layer.
    """

    def __init__(self, blocks: int, num_classes: int, width: int, normalize: Normalize) -> None:
        super().__init__()
        self.normalize = normalize
        self.stem = nn.Sequential(_conv(3, width, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.stages = nn.Sequential(
            _stage(width, width, blocks, 1),
            _stage(width, 2 * width, blocks, 2),
            _stage(2 * width, 4 * width, blocks, 2),
        )
        self.head = classification_head(4 * width, num_classes)

    def forward(self, images: Images) -> Logits:
        """Return the logits of images in [0, 1]."""
        x = self.normalize(images).contiguous(memory_format=torch.channels_last)
        return self.head(self.stages(self.stem(x)))


def resnet(
    depth: int,
    num_classes: int,
    *,
    width: int = 16,
    mean: Sequence[float] = NO_MEAN,
    std: Sequence[float] = NO_STD,
) -> ResNet:
    """Build a residual network for small images.

    Weights are kept channels-last, which is faster on a CPU and changes no value.

    Args:
        depth: Layers with weights, 6n + 2 >= 8; He et al. use 20, 32, 44, 56 and 110.
        num_classes: Classes to tell apart, >= 1.
        width: Channels of the first stage, even, >= 2.
        mean: Mean of each colour, in units of pixels in [0, 1].
        std: Deviation of each colour in the same units, > 0.

    Returns:
        A module from images in [0, 1], of any size, to logits.

    Raises:
        InputError: If `depth` is not 6n + 2, `width` is odd, or a deviation is not positive.

    Source:
        He et al. 2016, "Deep Residual Learning for Image Recognition", section 4.2; initialisation: He et al. 2015,
        "Delving Deep into Rectifiers", eq. 10 (variance 2 / fan-in), for the linear layer too.
    """
    if depth < 8 or (depth - 2) % 6:
        raise InputError(f"depth must be 6n + 2 and at least 8, got {depth}. 20, 32, 44, 56 and 110 are usual.")
    if width < 2 or width % 2:
        raise InputError(f"width must be even and at least 2, got {width}. 16 is usual.")
    model = ResNet((depth - 2) // 6, num_classes, width, Normalize(mean, std))
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in the stubs
