"""Uniform random numbers that belong to an image, not to a batch.

A counter-based hash, not a generator with a state: the number for a pixel is a function of (seed, image key, radius,
position of the pixel) and of nothing else, so it is the same in any batch, any order and on any device.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nodestill.data.keyed import Stream, further_bits, keyed_bits

_BITS = 24  # the significand of float32: every value is exact in it


def keyed_uniform(keys: Int64[Tensor, " batch"], seed: int, eps_255: int, count: int) -> Float[Tensor, "batch {count}"]:
    """Return numbers uniform in (-1, 1), on 2^24 equally spaced values symmetric about zero.

    Args:
        keys: One key per image, any integers; its position in the image set.
        seed: Any integer; counts modulo 2^64.
        eps_255: Radius in 1/255: different radii get independent numbers.
        count: Numbers wanted per image, >= 1.

    Returns:
        Floats of 32 bits in (-1, 1), shape (batch, count), the same on every device.

    Source:
        Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators": SplitMix64 over the pixels of an
        image, started from a hash of (seed, key, radius).
    """
    bits = further_bits(keyed_bits(seed, Stream.ATTACK, keys, eps_255), count)
    top = (bits >> (64 - _BITS)) & ((1 << _BITS) - 1)  # 0 ... 2^24 - 1; the mask undoes the copying of the sign
    odd = 2 * top + 1 - (1 << _BITS)  # odd integers below 2^24 in size: exact in float32, and never -1, 0 or 1
    return odd.to(torch.float32) / (1 << _BITS)
