"""The convolutions in front of the differential equation: normalised images become its initial state."""

from enum import Enum

from torch import nn

from nodestill.models.group_norm import norm_groups


class Stem(Enum):
    """The convolutions that turn an image into the state."""

    FLAT = "flat"  # one convolution, same size: for 8x8 pictures
    DOWN4 = "down4"  # two convolutions of stride 2: 32x32 pictures become 8x8


def stem(kind: Stem, channels: int) -> nn.Sequential:
    """Return the convolutions that turn normalised images into a state, He-initialised with bias 0.

    FLAT is one 3x3 convolution; DOWN4 is conv, GroupNorm, ReLU, conv, both 3x3 with stride 2.

    Args:
        kind: Which one.
        channels: Channels of the state, >= 1.

    Raises:
        InputError: If `channels` is below 1.
    """
    groups = norm_groups(channels)
    match kind:
        case Stem.FLAT:
            return nn.Sequential(_conv(3, channels, 1))
        case Stem.DOWN4:
            first, second = _conv(3, channels, 2), _conv(channels, channels, 2)
            return nn.Sequential(first, nn.GroupNorm(groups, channels), nn.ReLU(), second)


def _conv(channels_in: int, channels_out: int, stride: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1)
    nn.init.kaiming_normal_(conv.weight)
    nn.init.zeros_(conv.bias)
    return conv
