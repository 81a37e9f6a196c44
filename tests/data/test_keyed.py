"""Keyed random numbers against published outputs, Python's exact integers, and the statistics of uniform numbers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nodestill.data.keyed import Stream, further_bits, integers_below, keyed_bits, keyed_permutation

CPU = torch.device("cpu")
MASK = 2**64 - 1
ANY_SEED = st.integers(-(2**63), 2**64)


def unsigned(values: torch.Tensor) -> list[int]:
    return [value & MASK for value in values.flatten().tolist()]


def mixed(z: int) -> int:
    """The finaliser of SplitMix64 in exact integers."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def test_a_column_of_bits_is_the_published_output_of_splitmix64():
    # First outputs of the reference implementation for seeds 0 and 1234567.
    expected = [
        [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F],
        [6457827717110365317, 3203168211198807973, 9817491932198370423],
    ]
    bits = further_bits(torch.tensor([0, 1234567]), 3)
    assert [unsigned(row) for row in bits] == expected


@given(seed=ANY_SEED, first=st.integers(0, 2**62), second=st.integers(0, 2**62))
def test_keys_are_mixed_in_one_after_the_other(seed, first, second):
    state = 0
    for key in (seed, int(Stream.VIEW), first, second):
        state = mixed(((state ^ (key & MASK)) + 0x9E3779B97F4A7C15) & MASK)
    bits = keyed_bits(seed, Stream.VIEW, torch.tensor([first]), torch.tensor([second]))
    assert unsigned(bits) == [state]


def test_no_two_small_combinations_of_keys_collide():
    keys = torch.arange(50)
    bits = [keyed_bits(seed, stream, keys[:, None], keys[None, :]).flatten() for seed in range(4) for stream in list(Stream)]
    assert torch.cat(bits).unique().numel() == 4 * len(Stream) * 50 * 50


@pytest.mark.parametrize("limit", [2, 9, 10, 32])
def test_integers_are_uniform(limit):
    count = 20_000
    drawn = integers_below(keyed_bits(7, Stream.VIEW, torch.arange(count), 3), limit)
    observed = drawn.bincount(minlength=limit).double()
    chi_square = float(((observed - count / limit) ** 2 / (count / limit)).sum())
    assert observed.numel() == limit
    assert chi_square < limit - 1 + 4 * (2 * limit) ** 0.5  # mean plus about four standard deviations


def test_columns_are_uncorrelated():
    draws = integers_below(further_bits(keyed_bits(0, Stream.VIEW, torch.arange(20_000), 0), 5), 1000).double()
    correlation = torch.corrcoef(draws.T) - torch.eye(5, dtype=torch.float64)
    assert correlation.abs().max() < 0.03  # four standard deviations of 1 / sqrt(20,000)


@given(count=st.integers(1, 300), seed=ANY_SEED, key=st.integers(0, 10_000))
def test_a_permutation_holds_every_position_once(count, seed, key):
    order = keyed_permutation(count, seed, Stream.ORDER, key, CPU)
    assert order.sort().values.tolist() == list(range(count))
    assert torch.equal(order, keyed_permutation(count, seed, Stream.ORDER, key, CPU))


def test_all_permutations_of_three_are_equally_likely():
    orders = torch.stack([keyed_permutation(3, 0, Stream.ORDER, key, CPU) for key in range(1200)])
    counts = orders.unique(dim=0, return_counts=True)[1]
    assert counts.numel() == 6
    assert (counts - 200).abs().max() < 4 * (1200 * 5 / 36) ** 0.5
