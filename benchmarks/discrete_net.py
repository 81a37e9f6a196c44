"""A strong discrete net of about the arithmetic of cifar10-faster's student: what the same images allow without an equation.

Source:
    Jordan 2024, "94% on CIFAR-10 in 3.29 seconds", section 3: airbench94. Differs: no bias behind the whitening.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from nodestill.models.head import MeanLinear
from nodestill.models.normalize import Normalize
from nodestill.models.whitening import WHITENED_CHANNELS, Whitening

_WIDTHS = (WHITENED_CHANNELS, 64, 256, 256)


def discrete_net(num_classes: int, mean: Sequence[float], std: Sequence[float]) -> nn.Sequential:
    """Return whitening, three groups of two convolutions, 3x3 max pooling and a linear layer; images in [0, 1] -> logits."""
    groups = [layer for pair in pairwise(_WIDTHS) for layer in _group(*pair)]
    head = [nn.MaxPool2d(3), nn.Flatten(), MeanLinear(_WIDTHS[-1], num_classes)]
    net = nn.Sequential(Normalize(mean, std), Whitening(), _gelu(), *groups, *head)
    return net.to(memory_format=torch.channels_last)


def _group(channels_in: int, channels: int) -> list[nn.Module]:
    """Return convolution, 2x2 max-pool, BatchNorm, GELU, convolution, BatchNorm, GELU."""
    last = [_conv(channels, channels), _norm(channels), _gelu()]
    return [_conv(channels_in, channels), nn.MaxPool2d(2), _norm(channels), _gelu(), *last]


def _conv(channels_in: int, channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
    nn.init.dirac_(conv.weight[:channels_in].detach())
    return conv


def _norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, momentum=0.4)
    norm.weight.requires_grad_(False)
    return norm


def _gelu() -> nn.Module:
    return nn.GELU(approximate="tanh")
