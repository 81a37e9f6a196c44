"""The Wilson interval: its ends solve the quadratic that defines them."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nodestill.intervals import wilson_interval


@given(count=st.integers(1, 100_000), share=st.floats(0, 1), z=st.floats(0.5, 4))
def test_both_ends_solve_the_quadratic(count, share, z):
    hits = round(share * count)
    assume(0 < hits < count)
    for p in wilson_interval(hits, count, z):
        assert (p - hits / count) ** 2 == pytest.approx(z * z * p * (1 - p) / count, rel=1e-6)


@given(count=st.integers(1, 10_000), share=st.floats(0, 1))
def test_the_share_lies_inside_and_the_ends_in_the_unit_interval(count, share):
    hits = round(share * count)
    low, high = wilson_interval(hits, count)
    assert 0 <= low <= hits / count + 1e-12
    assert hits / count - 1e-12 <= high <= 1
    assert low < high


@given(count=st.integers(1, 1000), share=st.floats(0, 1))
def test_hits_and_misses_mirror_each_other(count, share):
    hits = round(share * count)
    low, high = wilson_interval(hits, count)
    assert wilson_interval(count - hits, count) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_known_values():
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)  # Newcombe 1998, table I, method 3
    assert wilson_interval(0, 10) == pytest.approx((0, 1.96**2 / (10 + 1.96**2)))
    assert wilson_interval(10, 10)[1] == 1.0
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_more_images_say_more():
    widths = [high - low for low, high in (wilson_interval(n // 2, n) for n in (10, 100, 1000))]
    assert widths == sorted(widths, reverse=True)
