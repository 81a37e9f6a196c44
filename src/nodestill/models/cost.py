"""What a model costs: parameters, and multiply-accumulates (MAC) of its convolutions and linear layers for one image.

Normalisation, activations and the time maps are not counted: a few operations per value, against hundreds.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nodestill.models.neural_ode import NeuralODEClassifier


def parameter_count(model: nn.Module) -> int:
    """Return the number of values in a model's parameters, frozen ones too (buffers not included)."""
    return sum(parameter.numel() for parameter in model.parameters())


def macs(module: nn.Module, *example: Tensor) -> int:
    """Return the multiply-accumulates of one image's convolutions and linear layers in a call of `module`.

    The module is called once, in evaluation mode and without gradient; its mode is unchanged afterwards.

    Args:
        module: What to call.
        *example: What to call it with; the batch comes first in each, and its size does not matter.

    Returns:
        The count, >= 0.
    """
    counted: list[int] = []

    def count(layer: nn.Conv2d | nn.Linear, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        counted.append(output[0].numel() * layer.weight[0].numel())

    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    try:
        with _inference(module):
            module(*example)
    finally:
        for hook in hooks:
            hook.remove()
    return sum(counted)


@contextmanager
def _inference(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode, without gradient, for a while: nothing in it changes."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        with torch.no_grad():
            module.eval()
            yield
    finally:
        for part, training in modes:
            part.training = training


class ForwardMacs(NamedTuple):
    """Multiply-accumulates of one image on its way through a Neural ODE classifier."""

    encoders: int  # of all equations
    per_evaluation: tuple[int, ...]  # one call of f, of each equation
    evaluations: tuple[float | int, ...]  # calls of f, of each equation; a mean over images need not be whole
    head: int

    @property
    def dynamics(self) -> float:
        """Those of all evaluations of f."""
        return float(sum(calls * each for calls, each in zip(self.evaluations, self.per_evaluation, strict=True)))

    @property
    def total(self) -> float:
        """encoders + dynamics + head."""
        return self.encoders + self.dynamics + self.head


def forward_macs(
    model: NeuralODEClassifier, image_shape: tuple[int, int, int], evaluations: Sequence[float | int]
) -> ForwardMacs:
    """Count the multiply-accumulates of one image, part by part; the mode and the buffers of the model stay as they are.

    Args:
        model: The classifier.
        image_shape: (3, height, width).
        evaluations: Calls of each equation's f charged to the image, or their mean over images, >= 0.

    Returns:
        Multiply-accumulates of encoders, one call of each f, and head.
    """
    parameter = next(model.parameters())
    y = torch.zeros(1, *image_shape, dtype=parameter.dtype, device=parameter.device)
    time = torch.zeros(1, 1, 1, 1, dtype=torch.float64, device=y.device)
    encoders, each = 0, []
    for encoder, f in model.equations:
        encoders += macs(encoder, y)
        with _inference(model):
            y = encoder(y)
        each.append(macs(f, time, y))
    return ForwardMacs(encoders, tuple(each), tuple(evaluations), macs(model.head, y))
