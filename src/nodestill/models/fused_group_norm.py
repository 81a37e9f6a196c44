"""The group normalisation of `group_norm`, written for a compiler: no passes to save, only sums and what lies between them.

Its derivative is written out all the same. From that of `F.group_norm`, or of the plain formula, a compiler makes passes that
take longer than ours one by one (bfloat16, channels-last, a CPU).
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from nodestill.models.time_map import Map, Share, State, gradient_of_map, gradient_of_share

Weight = Float[Tensor, " channels"]
Moment = Float[Tensor, "batch channels 1 1"]


class How(NamedTuple):
    """What a norm does beside its tensors."""

    groups: int
    eps: float
    relu: bool
    out_dtype: torch.dtype


def fused_group_norm(z: State, share: Share, time_map: Map, weight: Weight, bias: Weight, how: How) -> State:
    """Return what `group_norm_at_time` does."""
    parts = (z, share, time_map, weight, bias)
    if torch.is_grad_enabled() and any(part.requires_grad for part in parts):
        return _FusedGroupNorm.apply(*parts, how)
    return _normalised(*parts, how)[0]


def _normalised(z: State, share: Share, time_map: Map, weight: Weight, bias: Weight, how: How) -> tuple[State, Moment, Moment]:
    """Return the norm, the means, and one over the deviations."""
    pixels = z.shape[2] * z.shape[3]
    x = torch.addcmul(z.to(time_map.dtype), share, time_map)
    mean = _group_mean(_pixel_sum(x), how.groups, pixels)
    rstd = (_group_mean(_pixel_sum((x - mean).square()), how.groups, pixels) + how.eps).rsqrt()
    y = (x - mean) * (rstd * weight.view(1, -1, 1, 1)) + bias.view(1, -1, 1, 1)
    return (y.relu() if how.relu else y).to(how.out_dtype), mean, rstd


class _FusedGroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: State, share: Share, time_map: Map, weight: Weight, bias: Weight, how: How) -> State:
        y, mean, rstd = _normalised(z, share, time_map, weight, bias, how)
        ctx.how = how
        ctx.save_for_backward(z, share, time_map, weight, mean, rstd, y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: State) -> tuple[Tensor | None, ...]:
        z, share, time_map, weight, mean, rstd, y = ctx.saved_tensors
        groups, pixels = ctx.how.groups, z.shape[2] * z.shape[3]
        grad = grad.to(time_map.dtype)
        grad = torch.where(y > 0, grad, 0.0) if ctx.how.relu else grad
        x = torch.addcmul(z.to(time_map.dtype), share, time_map) - mean
        sum_g, sum_gx = _pixel_sum(grad), _pixel_sum(grad * x) * rstd.flatten(1)
        shift = _group_mean(sum_g * weight, groups, pixels) * rstd
        slope = _group_mean(sum_gx * weight, groups, pixels) * rstd * rstd
        dx = grad * (rstd * weight.view(1, -1, 1, 1)) - x * slope - shift
        of_time = gradient_of_share(dx, time_map), gradient_of_map(dx, share)  # a compiler leaves out what nobody asks for
        return dx.to(z.dtype), *of_time, sum_gx.sum(0), sum_g.sum(0), None


def _pixel_sum(x: State) -> Float[Tensor, "batch channels"]:
    return x.permute(0, 2, 3, 1).flatten(1, 2).sum(1)


def _group_mean(sums: Float[Tensor, "batch channels"], groups: int, pixels: int) -> Moment:
    batch, channels = sums.shape
    mean = sums.view(batch, groups, -1).sum(-1, keepdim=True) * (groups / (channels * pixels))
    return mean.expand(-1, -1, channels // groups).reshape(batch, channels, 1, 1)
