"""The right-hand side f(t, y) of the student: a stack of 3x3 convolutions that see the time as one more input channel.

    f = conv, [norm], activation, ..., conv, [norm]          `layers` convolutions, the last one without activation
    f = activation, conv, [norm], ..., activation, conv, [norm]                                with `pre_activation`

The extra channel, t / t1 at every pixel, is never made: its share of each convolution is computed apart (`time_map`), which
is exact because nothing stands between the joining and the convolution. There is no batch normalisation: its statistics,
shared over t and over the batch, would make f depend on the path of the solver and on the other images.
"""

import math
from collections.abc import Sequence
from enum import Enum

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nodestill.errors import InputError
from nodestill.models.group_norm import group_norm_at_time, norm_groups
from nodestill.models.time_map import Map, Share, State, add_time_, time_maps


class Norm(Enum):
    """What follows each convolution of f."""

    GROUP = "group"  # GroupNorm in groups of 16 channels or somewhat more: `norm_groups`
    NONE = "none"


class Activation(Enum):
    """The nonlinearity of f. With a smooth one f has all derivatives, as the order of a solver presumes."""

    RELU = "relu"
    SOFTPLUS = "softplus"
    TANH = "tanh"


class ConvDynamics(nn.Module):
    """f(t, y) by convolutions of constant width.

    Args:
        channels: Channels C of the state, >= 1.
        layers: Number of convolutions, >= 1.
        norm: What follows each convolution.
        activation: What follows each norm except the last.
        t1: Horizon: time enters as t / t1, as 0 if t1 is 0. Finite, >= 0.
        zero_last: Whether f starts as f = 0: the last convolution (Norm.NONE) or the last norm (Norm.GROUP) is zero.
        scale: What the last layer's result is multiplied by, finite.
        pre_activation: Whether an activation stands before the first convolution too (He et al. 2016, "Identity Mappings in
            Deep Residual Networks"): then a single layer is no longer linear.

    Raises:
        InputError: If a value is out of range.

    Source:
        Chu et al. 2022 (arXiv 2203.05103) for four convolutions; where the time and the norm go is our reading.
        Initialisation: He et al. 2015, eq. 10, fan-in 9 (C + 1), biases 0.
    """

    def __init__(
        self,
        channels: int,
        *,
        layers: int = 4,
        norm: Norm,
        activation: Activation,
        t1: float,
        zero_last: bool = False,
        scale: float = 1.0,
        pre_activation: bool = False,
    ) -> None:
        super().__init__()
        if layers < 1:
            raise InputError(f"layers must be at least 1, got {layers}. 4 is usual.")
        if not 0 <= t1 < math.inf:
            raise InputError(f"t1 must be finite and >= 0, got {t1}. 1 is usual.")
        if not math.isfinite(scale):
            raise InputError(f"scale must be finite, got {scale}. 1 is usual.")
        groups = norm_groups(channels)
        self.channels, self.t1, self.scale = channels, float(t1), scale
        self.norm, self.activation, self.pre_activation = norm, activation, pre_activation
        convs = [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(layers)]
        norms = [nn.GroupNorm(groups, channels) for _ in range(layers if norm is Norm.GROUP else 0)]
        self.convs = nn.ModuleList(convs)
        self.time_kernels = nn.Parameter(torch.empty(layers, channels, 3, 3))
        self.norms = nn.ModuleList(norms)
        self._initialise(convs, norms, zero_last)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in the stubs

    def _initialise(self, convs: Sequence[nn.Conv2d], norms: Sequence[nn.GroupNorm], zero_last: bool) -> None:
        std = math.sqrt(2 / (9 * (self.time_kernels.shape[1] + 1)))
        nn.init.normal_(self.time_kernels, std=std)
        for conv in convs:
            assert conv.bias is not None  # a convolution has one unless told otherwise
            nn.init.normal_(conv.weight, std=std)
            nn.init.zeros_(conv.bias)
        if zero_last and norms:
            nn.init.zeros_(norms[-1].weight)
        elif zero_last:
            nn.init.zeros_(convs[-1].weight)
            nn.init.zeros_(self.time_kernels[-1])

    def forward(self, t: Float[Tensor, "#batch 1 1 1"], y: State) -> State:
        """Return dy/dt in the dtype of `y`; convolutions obey autocast, sums over pixels do not.

        Args:
            t: Time, one for each image or one for all, in [0, t1]; any floating dtype.
            y: State; fastest if channels-last.
        """
        maps = time_maps(self.time_kernels, y.shape[2], y.shape[3])
        share = (t / self.t1 if self.t1 else torch.zeros_like(t)).to(maps[0].dtype).expand(y.shape[0], 1, 1, 1)
        x, last = self._activated(y) if self.pre_activation else y, len(maps) - 1
        for layer, time_map in enumerate(maps):
            x = self._layer(layer, share, time_map, x, y.dtype if layer == last else None)
        return x if self.scale == 1 else x * self.scale

    def _layer(self, index: int, share: Share, time_map: Map, x: State, last_dtype: torch.dtype | None) -> State:
        z = self.convs[index](x)
        inner = last_dtype is None
        out_dtype = z.dtype if inner else last_dtype
        relu = inner and self.activation is Activation.RELU
        if self.norm is Norm.GROUP:
            norm = self.norms[index]
            assert isinstance(norm, nn.GroupNorm)  # a ModuleList does not say what it holds
            z = group_norm_at_time(
                z, share, time_map, norm.weight, norm.bias, groups=norm.num_groups, relu=relu, out_dtype=out_dtype
            )
        else:
            z = add_time_(z, share, time_map, relu=relu).to(out_dtype)
        return self._smooth(z) if inner else z

    def _activated(self, x: State) -> State:
        return F.relu(x) if self.activation is Activation.RELU else self._smooth(x)

    def _smooth(self, x: State) -> State:
        match self.activation:
            case Activation.RELU:
                return x  # already applied, in the same pass as the time
            case Activation.SOFTPLUS:
                return F.softplus(x)
            case Activation.TANH:
                return torch.tanh(x)
