"""How one stage of a step undoes what bfloat16 makes of f's weights.

Where f computes in bfloat16, the rounding of its weights is most of the rounding error of a solve: unlike that of the states it
is the same in every evaluation, so nothing averages it out. To first order in h a step sees the mean of the weights that
its stages used, weighted by b. So one stage, of weight beta, takes weights that are moved against the error of all others:

    w_other = bf16(w),    w_this = bf16(w - (1 - beta) / beta * (w_other - w))

The mean is then off by beta of one rounding, for no further evaluation. Which stage it is, the tableau says. The idea is
that of compensated summation (Kahan 1965): what one term lost, another one is given.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd


def compensated_weights(dynamics: nn.Module, share: float) -> dict[str, Tensor]:
    """Return the float32 weights of f's convolutions and linear layers as they are to be before autocast rounds them.

    Other parameters stay as they are. A layer that f shields from autocast has, in this one stage, weights that are off by
    (1 - beta) / beta roundings.

    Args:
        dynamics: f.
        share: beta, the weight of the stage in the step, in (0, 1].

    Returns:
        Tensors by the names of parameters of `dynamics`; their gradient is that of the parameter.
    """
    layers = [layer for layer in dynamics.modules() if isinstance(layer, _ConvNd | nn.Linear)]
    rounded = {id(value) for layer in layers for value in layer.parameters(recurse=False) if value.dtype == torch.float32}
    factor = (1 - share) / share
    return {name: _moved(value, factor) for name, value in dynamics.named_parameters() if id(value) in rounded}


def _moved(weight: Tensor, factor: float) -> Tensor:
    with torch.no_grad():
        against = (weight.to(torch.bfloat16).float() - weight).mul_(-factor)
    return weight + against
