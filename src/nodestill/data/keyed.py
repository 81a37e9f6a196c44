"""Random numbers that are a function of their keys: the same keys give the same numbers, on any device, in any order.

Each key is mixed into the state with the finaliser of SplitMix64, in wrapping int64 arithmetic. There is no state to
save, so a run that was killed goes on bit for bit. Good enough for shuffling and augmentation, not for cryptography.
"""

from enum import IntEnum

import torch
from jaxtyping import Int64
from torch import Tensor


class Stream(IntEnum):
    """What the numbers are for; different uses of one seed must not be correlated."""

    ORDER = 1
    VIEW = 2
    HOLD_OUT = 3
    ATTACK = 4


def _signed(value: int) -> int:
    """Map an integer modulo 2^64 to the int64 with the same bits."""
    return (value + 2**63) % 2**64 - 2**63


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_FACTOR_1 = _signed(0xBF58476D1CE4E5B9)
_FACTOR_2 = _signed(0x94D049BB133111EB)


def keyed_bits(seed: int, stream: Stream, *keys: Tensor | int) -> Int64[Tensor, "..."]:
    """Return 64 random bits for every combination of keys.

    Args:
        seed: Any integer; counts modulo 2^64.
        stream: What the numbers are for.
        keys: Integers or int64 tensors that broadcast against each other; their order matters.

    Returns:
        Int64 of the broadcast shape of the keys, all bit patterns equally likely.

    Source:
        Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators" (SplitMix64), with Stafford's
        constants. Differs: a chain over several keys in place of one counter.
    """
    state = torch.tensor(0)
    for key in (_signed(seed), int(stream), *keys):
        state = _mixed((state ^ key) + _GOLDEN)
    return state


def further_bits(bits: Int64[Tensor, " batch"], count: int) -> Int64[Tensor, "batch {count}"]:
    """Return `count` independent columns of 64 random bits per key: SplitMix64 proper, started at `bits`."""
    return _mixed(bits[:, None] + _GOLDEN * torch.arange(1, count + 1, device=bits.device))


def integers_below(bits: Int64[Tensor, "*shape"], limit: int) -> Int64[Tensor, "*shape"]:
    """Turn random bits into uniform integers 0 … limit − 1; the bias is below limit / 2^31."""
    return _shifted_right(bits, 33) % limit


def keyed_permutation(count: int, seed: int, stream: Stream, key: int, device: torch.device) -> Int64[Tensor, "{count}"]:
    """Return a uniform permutation of 0 … count − 1 that is a function of the seed, the stream and the key alone."""
    # Stable, so that the (improbable) ties come out alike on every device.
    return keyed_bits(seed, stream, key, torch.arange(count, device=device)).argsort(stable=True)


def _mixed(z: Int64[Tensor, "*shape"]) -> Int64[Tensor, "*shape"]:
    z = (z ^ _shifted_right(z, 30)) * _FACTOR_1
    z = (z ^ _shifted_right(z, 27)) * _FACTOR_2
    return z ^ _shifted_right(z, 31)


def _shifted_right(z: Int64[Tensor, "*shape"], places: int) -> Int64[Tensor, "*shape"]:
    """Shift without carrying the sign in, as an unsigned integer would."""
    return (z >> places) & ((1 << (64 - places)) - 1)
