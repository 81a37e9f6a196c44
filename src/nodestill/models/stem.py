"""What stands in front of a differential equation, between two, and behind the last: a `Stem` names them all."""

from collections.abc import Sequence
from enum import Enum
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nodestill.models.group_norm import norm_groups
from nodestill.models.head import Pooling, classification_head
from nodestill.models.normalize import Normalize
from nodestill.models.whitening import WHITENED_CHANNELS, Whitening

_QUICK = 0.4  # share of a batch in the running statistics: a short training has no long past worth an average


class Stem(Enum):
    """The convolutions that turn an image into the state."""

    FLAT = "flat"  # one convolution, same size: for 8x8 pictures
    DOWN4 = "down4"  # two convolutions of stride 2: 32x32 pictures become 8x8
    WHITENED = "whitened"  # patch whitening, then a transition: 32x32 pictures become 15x15
    SMOOTH = "smooth"  # the same with GELU, and with a BatchNorm and GELU behind each equation: see `transition`, `head_behind`


def stem(kind: Stem, channels: int) -> nn.Sequential:
    """Return the convolutions that turn normalised images into a state, He-initialised with bias 0.

    FLAT is one 3x3 convolution; DOWN4 is conv, GroupNorm, ReLU, conv, both 3x3 with stride 2; WHITENED and SMOOTH are a
    `Whitening`, ReLU or GELU, and a `transition`.

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
        case Stem.WHITENED | Stem.SMOOTH:
            activation = nn.GELU(approximate="tanh") if kind is Stem.SMOOTH else nn.ReLU()
            return nn.Sequential(Whitening(), activation, transition(WHITENED_CHANNELS, channels, kind))


def as_state(features: Float[Tensor, "batch channels rows columns"]) -> Float[Tensor, "batch channels rows columns"]:
    """Return features as a solve wants them: channels-last and at least float32, even under autocast."""
    dtype = torch.promote_types(features.dtype, torch.float32)
    return features.to(dtype).contiguous(memory_format=torch.channels_last)


def transition(channels_in: int, channels_out: int, kind: Stem = Stem.WHITENED) -> nn.Sequential:
    """Return what makes the end of one equation the start of the next: 3x3 conv, 2x2 max-pool, BatchNorm, ReLU or GELU.

    BatchNorm stands outside of every f: with the statistics of training fixed, each image is classified by itself. SMOOTH
    starts as a convolution that passes the first channels on as they are, and its BatchNorm learns no scale.

    Args:
        channels_in: Channels of the input, >= 1.
        channels_out: Channels of the output, >= 1; its picture has half the size.
        kind: Of the model's stem.

    Source:
        SMOOTH: Jordan 2024, "94% on CIFAR-10 in 3.29 seconds", sections 3.1 and 3.3.
    """
    conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    if kind is Stem.SMOOTH:
        nn.init.dirac_(conv.weight[:channels_in].detach())
    else:
        nn.init.kaiming_normal_(conv.weight)
    return nn.Sequential(conv, nn.MaxPool2d(2), *_normalized(kind, channels_out))


def head_behind(kind: Stem, channels: int, num_classes: int, pooling: Pooling) -> nn.Sequential:
    """Return what makes logits of the end of the last equation; a SMOOTH one begins with BatchNorm and GELU.

    Args:
        kind: Of the model's stem.
        channels: Channels of the last state, >= 1.
        num_classes: Classes to tell apart, >= 1.
        pooling: How the pixels of a channel become one number.
    """
    head = classification_head(channels, num_classes, pooling, mean_over_channels=kind is Stem.SMOOTH)
    return nn.Sequential(*_closing(kind, channels), *head)


def _closing(kind: Stem, channels: int) -> list[nn.Module]:
    """Return what stands between the end of an equation and what follows."""
    return _normalized(kind, channels) if kind is Stem.SMOOTH else []


def _normalized(kind: Stem, channels: int) -> list[nn.Module]:
    if kind is not Stem.SMOOTH:
        return [nn.BatchNorm2d(channels), nn.ReLU()]
    norm = nn.BatchNorm2d(channels, momentum=_QUICK)
    norm.weight.requires_grad_(False)
    return [norm, nn.GELU(approximate="tanh")]


def encoders(kind: Stem, widths: Sequence[int], mean: Sequence[float], std: Sequence[float]) -> list[nn.Module]:
    """Return what makes the initial state of each equation: normalisation and stem of the first, transitions of the others.

    Args:
        kind: Of the stem.
        widths: Channels of each state, at least one, each >= 1.
        mean: Mean of each colour, in units of pixels in [0, 1].
        std: Deviation of each colour in the same units, > 0.

    Raises:
        InputError: If a value is out of range.
    """
    first = nn.Sequential(Normalize(mean, std), stem(kind, widths[0]))
    pairs = pairwise(widths)
    return [first, *(nn.Sequential(*_closing(kind, before), *transition(before, after, kind)) for before, after in pairs)]


def _conv(channels_in: int, channels_out: int, stride: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1)
    nn.init.kaiming_normal_(conv.weight)
    assert conv.bias is not None  # a convolution has one unless told otherwise
    nn.init.zeros_(conv.bias)
    return conv
