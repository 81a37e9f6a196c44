"""Group normalisation of z + s·m (see `time_map`), with or without the ReLU that follows, fast for channels-last pictures.

It equals `F.group_norm(z + s * m, ...)` followed by `F.relu`. PyTorch's own kernel takes five times as long as a whole
convolution for bfloat16 channels-last pictures on a CPU. Here the arithmetic is float32 (float64 for float64) in a few
passes over contiguous memory, and what is kept for the backward pass has the dtype of z. Passes write in place and one
cheap pass is repeated rather than kept, because fresh memory costs more than the arithmetic. A second derivative is refused.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nodestill.errors import InputError
from nodestill.first_derivative import first_derivative_only
from nodestill.models.fused_group_norm import How, fused_group_norm
from nodestill.models.time_map import Map, Share, State, gradient_of_map, gradient_of_share

Weight = Float[Tensor, " channels"]
Moment = Float[Tensor, "batch channels 1 1"]


def norm_groups(channels: int) -> int:
    """Return the number of groups of a group normalisation: groups of 16 channels, as 32 of the paper's 512.

    Where 16 do not divide the channels, groups have the least larger number that does; fewer channels are one group.

    Not min(32, channels): with one channel per group the norm after the last convolution takes the mean of every channel away,
    and a head that averages over pixels then sees nothing of what f computed.

    Raises:
        InputError: If there are no channels.
    """
    if channels < 1:
        raise InputError(f"channels must be at least 1, got {channels}. 64 is a good start.")
    return max(groups for groups in range(1, max(1, channels // 16) + 1) if channels % groups == 0)


def _pixel_sum(x: State) -> Float[Tensor, "batch channels"]:
    return x.permute(0, 2, 3, 1).flatten(1, 2).sum(1)


def _group_mean(sums: Float[Tensor, "batch channels"], groups: int, pixels: int) -> Moment:
    """Average sums over pixels within each group, and hand the average to each channel of the group."""
    batch, channels = sums.shape
    mean = sums.view(batch, groups, -1).sum(-1, keepdim=True).mul_(groups / (channels * pixels))
    return mean.expand(-1, -1, channels // groups).contiguous().view(batch, channels, 1, 1)


def _input(x: State, z: State, share: Share, time_map: Map) -> State:
    """Write z + s·m into x."""
    return x.copy_(z).addcmul_(share, time_map)


class _GroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        z: State,
        share: Share,
        time_map: Map,
        weight: Weight,
        bias: Weight,
        how: How,
    ) -> State:
        groups, pixels = how.groups, z.shape[2] * z.shape[3]
        x = _input(torch.empty_like(z, dtype=time_map.dtype), z, share, time_map)
        mean = _group_mean(_pixel_sum(x), groups, pixels)
        variance = _group_mean(_pixel_sum(x.sub_(mean).square_()), groups, pixels)
        rstd = variance.add_(how.eps).rsqrt_()
        slope = rstd * weight.view(1, -1, 1, 1)
        shift = torch.addcmul(bias.view(1, -1, 1, 1), mean, slope, value=-1)
        _input(x, z, share, time_map).mul_(slope).add_(shift)
        y = (x.relu_() if how.relu else x).to(how.out_dtype)
        ctx.how = how
        ctx.save_for_backward(z, share, time_map, weight, mean, rstd, *([y] if how.relu else []))
        return y

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: State) -> tuple[Tensor | None, ...]:
        z, share, time_map, weight, mean, rstd, *y = ctx.saved_tensors
        groups, pixels, scale = ctx.how.groups, z.shape[2] * z.shape[3], weight.view(1, -1, 1, 1)
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad = (torch.ops.aten.threshold_backward(grad, y[0], 0) if ctx.how.relu else grad).to(time_map.dtype)
        x = _input(torch.empty_like(grad), z, share, time_map).sub_(mean)
        sum_g, sum_gx = _pixel_sum(grad), _pixel_sum(x.mul_(grad)) * rstd.flatten(1)
        shift = _group_mean(sum_g * weight, groups, pixels).mul_(rstd).neg_()
        slope = _group_mean(sum_gx * weight, groups, pixels).mul_(rstd * rstd).neg_()
        _input(x, z, share, time_map)
        dx = torch.addcmul(shift.addcmul_(mean, slope, value=-1), x, slope, out=x).addcmul_(grad, rstd * scale)
        needs = ctx.needs_input_grad
        return (
            dx.to(z.dtype) if needs[0] else None,
            gradient_of_share(dx, time_map) if needs[1] else None,
            gradient_of_map(dx, share) if needs[2] else None,
            sum_gx.sum(0) if needs[3] else None,
            sum_g.sum(0) if needs[4] else None,
            None,
        )


def group_norm_at_time(
    z: State,
    share: Share,
    time_map: Map,
    weight: Weight,
    bias: Weight,
    *,
    groups: int,
    eps: float = 1e-5,
    relu: bool = False,
    out_dtype: torch.dtype | None = None,
) -> State:
    """Return the group normalisation of z + s·m, scaled and shifted per channel, or its positive part.

    Args:
        z: Output of a convolution, fastest channels-last; any floating dtype. Left as it is.
        share: Time of each image as a share of the horizon, s.
        time_map: Answer of the time kernel to ones, m. Its dtype, float32 or float64, is that of the arithmetic; `share`,
            `weight` and `bias` have the same.
        weight: Scale of each channel.
        bias: Shift of each channel.
        groups: Number of groups, a divisor of the number of channels.
        eps: Added to the variance, > 0.
        relu: Whether to keep the positive part only.
        out_dtype: dtype of the result; that of `z` if not given.

    Returns:
        A new tensor of the shape of `z`.

    Source:
        Wu and He 2018, "Group Normalization", eqs. 1-3.
    """
    how = How(groups, eps, relu, out_dtype or z.dtype)
    if torch.compiler.is_compiling():  # a compiler makes the few passes itself
        return fused_group_norm(z, share, time_map, weight, bias, how)
    return _GroupNorm.apply(z, share, time_map, weight, bias, how)
