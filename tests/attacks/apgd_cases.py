"""Images and a classifier to try Auto-PGD and minimum norms on."""

import torch
from torch import nn

from attacks import oracles

COUNT = 12
KEYS = torch.arange(COUNT)


def interior(count=COUNT, dtype=torch.float64):
    """Byte images at least 20/255 away from black and white."""
    return (oracles.bytes_images(count, dtype=dtype) * 255).clamp(20, 235) / 255


def five_classes(dtype=torch.float64):
    """A convolutional classifier that is fooled within a few 1/255 and knows all its classes."""
    torch.manual_seed(5)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Tanh(), nn.Conv2d(6, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(96, 5))
    with torch.no_grad():
        net[0].weight *= 2
        net[0].bias.copy_(-net[0].weight.sum((1, 2, 3)) / 2)  # grey is zero
        net[2].bias.zero_()
        net[5].bias.zero_()
    return net.to(dtype).eval()
