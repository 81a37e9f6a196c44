"""How one stage of a step undoes what bfloat16 makes of the weights of f.

Where f computes in bfloat16, the rounding of its weights is most of the rounding error of a solve: unlike that of the states it
is the same in every evaluation, so nothing averages it out. To first order in h a step sees the mean of the weights that
its stages used, weighted by b. So one stage, of weight beta, takes weights that are moved against the error of all others:

    w_other = bf16(w),    w_this = bf16(w - (1 - beta) / beta * (w_other - w))

The mean is then off by at most beta of one rounding of the moved weight, for no further evaluation. Which stage it is, the
tableau says. The idea is that of compensated summation (Kahan 1965): what one term lost, another one is given.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_WITH_WEIGHTS = {
    F.linear, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d,
}  # fmt: skip


class CompensatingStage(TorchFunctionMode):
    """In this block convolutions and linear layers under autocast to bfloat16 have moved weights and biases.

    They are moved where autocast would round them, in the call itself: no module is written to, a weight that f computes is
    moved like a parameter, and a layer outside of autocast is left alone. Gradients are those of the weights as they are.

    Args:
        share: beta, the weight of the stage in the step, in (0, 1).
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.factor = (1 - share) / share

    def __torch_function__(
        self, function: Callable, types: Sequence[type], arguments: tuple = (), options: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of PyTorch, with moved weights if it is one that autocast rounds them for."""
        positional, named = list(arguments), dict(options or {})
        if function in _WITH_WEIGHTS and _rounds(positional[0] if positional else named["input"]):
            for place, name in ((1, "weight"), (2, "bias")):
                if name in named:
                    named[name] = self._moved(named[name])
                elif place < len(positional):
                    positional[place] = self._moved(positional[place])
        return function(*positional, **named)

    def _moved(self, weight: Tensor | None) -> Tensor | None:
        if weight is None or weight.dtype != torch.float32:
            return weight
        plain = weight.detach()
        return weight + (rounded(plain) - plain).mul_(-self.factor)


def _rounds(x: Tensor) -> bool:
    kind = x.device.type
    return torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) is torch.bfloat16


def rounded(weight: Tensor) -> Tensor:
    """Return float32 numbers of any shape rounded to those of bfloat16, ties to even, as float32; finite ones.

    By their bits: compilers take a conversion to bfloat16 and back for nothing, and leave it out.
    """
    bits = weight.view(torch.int32)
    odd = (bits >> 16) & 1
    return ((bits + (odd + 0x7FFF)) & -0x10000).view(torch.float32)
