"""The contribution of time to a convolution, z + s·m, with or without the ReLU that follows.

A convolution over the channels [y, s], s constant over the picture, is conv(y) + s·m, where m is what the kernel of the time
channel answers to a picture of ones, zero padding included. m is tiny, so that a whole extra channel costs one pass over
z. A second derivative is refused.
"""

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nodestill.first_derivative import first_derivative_only

State = Float[Tensor, "batch channels height width"]
Share = Float[Tensor, "batch 1 1 1"]
Map = Float[Tensor, "1 channels height width"]


def time_maps(
    kernels: Float[Tensor, "layers channels kernel kernel"], height: int, width: int
) -> list[Float[Tensor, "1 channels height width"]]:
    """Return each layer's answer to a picture of ones: a 'same' convolution with zero padding, without bias.

    Args:
        kernels: Kernel of the time channel of each layer; odd size.
        height: Height of the picture, >= 1.
        width: Width of the picture, >= 1.

    Returns:
        One channels-last map per layer, in the dtype of `kernels` even under autocast.
    """
    with torch.autocast(kernels.device.type, enabled=False):
        inside = (
            _taps_inside.__wrapped__ if torch.compiler.is_compiling() else _taps_inside
        )  # no cache for a compiler's stand-ins
        taps = inside(kernels.shape[-1], height, width, kernels.dtype, kernels.device)
        maps = taps @ kernels.flatten(2).transpose(1, 2)  # layers, pixels, channels
    return [m.view(1, height, width, -1).permute(0, 3, 1, 2) for m in maps.unbind()]


@lru_cache
def _taps_inside(size: int, height: int, width: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "pixels taps"]:
    """Return which taps of a kernel lie inside the picture, pixel by pixel, as ones and zeros."""
    with torch.inference_mode(False), torch.no_grad():  # the cached tensor may be used anywhere later
        ones = torch.ones(1, 1, height, width, dtype=dtype, device=device)
        return F.unfold(ones, size, padding=size // 2)[0].t().contiguous()


def gradient_of_map(grad: State, share: Share) -> Map:
    """Return the gradient with respect to m of anything whose gradient with respect to z + s·m is `grad`."""
    rows = grad.permute(0, 2, 3, 1).flatten(1)
    _, channels, height, width = grad.shape
    return (share.view(-1) @ rows).view(1, height, width, channels).permute(0, 3, 1, 2)


def gradient_of_share(grad: State, time_map: Map) -> Share:
    """Return the gradient with respect to s of anything whose gradient with respect to z + s·m is `grad`."""
    return (grad * time_map).sum((1, 2, 3), keepdim=True)


class _AddTime(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: State, share: Share, time_map: Map, relu: bool) -> State:
        z.addcmul_(share, time_map)
        y = z.relu_() if relu else z
        ctx.mark_dirty(z)
        ctx.relu = relu
        ctx.save_for_backward(share, time_map, *([y] if relu else []))
        return y

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: State) -> tuple[Tensor | None, ...]:
        share, time_map, *y = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad = torch.ops.aten.threshold_backward(grad, y[0], 0) if ctx.relu else grad
        needs = ctx.needs_input_grad
        return (
            grad,
            gradient_of_share(grad, time_map) if needs[1] else None,
            gradient_of_map(grad, share) if needs[2] else None,
            None,
        )


def add_time_(z: State, share: Share, time_map: Map, *, relu: bool) -> State:
    """Add s·m to z in place, and keep the positive part only if asked to.

    Args:
        z: Output of a convolution; overwritten. The sum is formed in its dtype.
        share: Time of each image as a share of the horizon, s.
        time_map: Answer of the time kernel to ones, m.
        relu: Whether to keep the positive part only.

    Returns:
        `z`.
    """
    share, time_map = share.to(z.dtype), time_map.to(z.dtype)
    if torch.compiler.is_compiling():  # a compiler joins the two itself
        z = torch.addcmul(z, share, time_map)
        return z.relu() if relu else z
    if torch.is_grad_enabled():
        return _AddTime.apply(z, share, time_map, relu)
    z.addcmul_(share, time_map)  # the same, without the price of an autograd function
    return z.relu_() if relu else z
