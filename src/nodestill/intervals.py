"""Uncertainty of a share that was measured on a finite number of images, and of a mean over trainings."""

from collections.abc import Sequence


def wilson_interval(successes: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """Return the Wilson score interval of a share, each end in [0, 1].

    Args:
        successes: Number of hits, 0 ... count.
        count: Number of trials; 0 gives (0, 1).
        z: Quantile of the normal distribution; 1.96 gives 95 %.

    Source:
        Wilson 1927, "Probable inference, the law of succession, and statistical inference", JASA 22, p. 209.
    """
    if count == 0:
        return 0.0, 1.0
    share, spread = successes / count, z * z / count
    centre = share + spread / 2
    reach = z * ((share * (1 - share) + spread / 4) / count) ** 0.5
    return max(0.0, (centre - reach) / (1 + spread)), min(1.0, (centre + reach) / (1 + spread))


def exact_interval(successes: int, count: int, confidence: float = 0.9) -> tuple[float, float]:
    """Return the exact (Clopper-Pearson) interval of a share; at 0.9 each end by itself holds with probability 0.95 or more.

    Args:
        successes: Number of hits, 0 ... count.
        count: Number of trials; 0 gives (0, 1).
        confidence: Probability that the interval covers the true share, in (0, 1), at least.

    Source:
        Clopper and Pearson 1934, "The use of confidence or fiducial limits", Biometrika 26, p. 404.
    """
    from scipy.stats import beta

    outside = (1 - confidence) / 2
    low = 0.0 if successes == 0 else float(beta.ppf(outside, successes, count - successes + 1))
    high = 1.0 if successes == count else float(beta.ppf(1 - outside, successes + 1, count - successes))
    return low, high


def student_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Return Student's interval of the mean of independent values, such as differences of paired trainings.

    Args:
        values: At least two; of differences, one for each pair. They should be about normal.
        confidence: Probability that the interval covers the true mean, in (0, 1).

    Source:
        Student 1908, "The probable error of a mean", Biometrika 6, p. 1.
    """
    from scipy.stats import t

    count, mean = len(values), sum(values) / len(values)
    reach = float(t.ppf((1 + confidence) / 2, count - 1)) * deviation(values) / count**0.5
    return mean - reach, mean + reach


def deviation(values: Sequence[float]) -> float:
    """Return the standard deviation of at least two values, with one less than their number in the denominator."""
    mean = sum(values) / len(values)
    return (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5


def difference_interval(one: tuple[int, int], other: tuple[int, int], z: float = 1.96) -> tuple[float, float]:
    """Return Newcombe's interval of the difference of two shares, one minus other, as if of different images.

    Where both are shares of the same images, which two models tend to get right together, it is wider than it need be.

    Args:
        one: Hits and trials, at least one.
        other: Likewise.
        z: Quantile of the normal distribution; 1.96 gives 95 %.

    Source:
        Newcombe 1998, "Interval estimation for the difference between independent proportions", Statistics in Medicine 17,
        p. 873, method 10.
    """
    (low, high), (other_low, other_high) = wilson_interval(*one, z), wilson_interval(*other, z)
    share, other_share = one[0] / one[1], other[0] / other[1]
    down = ((share - low) ** 2 + (other_high - other_share) ** 2) ** 0.5
    up = ((high - share) ** 2 + (other_share - other_low) ** 2) ** 0.5
    return share - other_share - down, share - other_share + up
