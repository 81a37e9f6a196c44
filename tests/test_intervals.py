"""Intervals: their ends solve the equations that define them, and are those of the published examples."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from nodestill.intervals import deviation, paired_interval, student_quantile, weighted_interval, wilson_interval


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


SLEEP = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]  # Student 1908, the additional hours of sleep


def test_students_interval_of_his_own_data():
    """As R's t.test prints it."""
    mean, reach = sum(SLEEP) / 10, student_quantile(9) * deviation(SLEEP) / 10**0.5
    assert (mean - reach, mean + reach) == pytest.approx((0.7001142, 2.4598858), abs=1e-7)
    assert deviation(SLEEP) == pytest.approx(1.229995, abs=1e-6)


def less(one: tuple[int, int], other: tuple[int, int]) -> tuple[float, float]:
    """The interval of one share minus another."""
    return weighted_interval([(1.0, one), (-1.0, other)])


def test_known_values_of_differences():
    assert less((56, 70), (48, 80)) == pytest.approx((0.0524, 0.3339), abs=5e-5)  # Newcombe 1998, method 10
    assert less((9, 10), (3, 10)) == pytest.approx((0.1705, 0.8090), abs=5e-5)


@given(st.integers(0, 50), st.integers(0, 70))
def test_a_difference_turned_round_is_its_negative(hits, others):
    low, high = less((hits, 50), (others, 70))
    assert less((others, 70), (hits, 50)) == pytest.approx((-high, -low), abs=1e-12)
    assert -1 - 1e-12 <= low <= hits / 50 - others / 70 <= high <= 1 + 1e-12


def test_the_mean_of_shares_is_surer_than_each_of_them():
    alone, four = weighted_interval([(1.0, (500, 1000))]), weighted_interval([(0.25, (500, 1000))] * 4)
    assert alone == pytest.approx(wilson_interval(500, 1000))
    assert four[1] - four[0] == pytest.approx((alone[1] - alone[0]) / 2)


def test_paired_shares_agree_with_the_authors_own_code():
    """Bonett's package statpsych, example of ci.prop.ps: 12 and 6 pairs agree, 26 differ in one direction, 4 in the other."""
    differences = [0] * 18 + [1] * 26 + [-1] * 4
    assert paired_interval(differences, 1.959964) == pytest.approx((0.2548067, 0.6251933), abs=5e-7)
    assert paired_interval([-one for one in differences]) == pytest.approx([-end for end in paired_interval(differences)][::-1])


@pytest.mark.parametrize(("share", "count"), [(0.0, 200), (0.05, 200), (0.3, 60)])
def test_the_interval_of_paired_differences_covers_as_often_as_it_says(share, count, generator):
    """Of a thousand samples whose true difference is `share`; averages over several answers count as well."""
    covered = 0
    for _ in range(1000):
        gains = (torch.rand((count, 4), generator=generator) < share).double().mean(1)
        up, down = ((torch.rand((count, 4), generator=generator) < 0.1).double() for _ in range(2))
        low, high = paired_interval((0.5 * gains + 0.5 * (up - down).mean(1)).tolist())
        covered += low <= 0.5 * share <= high
    assert covered >= 930
