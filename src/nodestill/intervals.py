"""Uncertainty of a share that was measured on a finite number of images, and of a mean over trainings."""

from collections.abc import Sequence


def wilson_interval(successes: float | int, count: int, z: float = 1.96) -> tuple[float, float]:
    """Return the Wilson score interval of a share, each end in [0, 1].

    Args:
        successes: Number of hits, 0 ... count; a mean of several such numbers need not be whole.
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


def student_quantile(freedom: int, confidence: float = 0.95) -> float:
    """Return how many standard errors Student's interval of a mean reaches to either side.

    Args:
        freedom: Degrees of freedom of the deviation, >= 1.
        confidence: Probability that the interval covers the true mean, in (0, 1).

    Source:
        Student 1908, "The probable error of a mean", Biometrika 6, p. 1.
    """
    from scipy.stats import t

    return float(t.ppf((1 + confidence) / 2, freedom))


def deviation(values: Sequence[float]) -> float:
    """Return the standard deviation of at least two values, with one less than their number in the denominator."""
    mean = sum(values) / len(values)
    return (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5


def paired_interval(differences: Sequence[float | int], z: float = 1.96) -> tuple[float, float]:
    """Return the interval of a mean of differences that were measured image by image.

    Two images that were not measured, one with a difference of 1 and one with -1, are counted with the others. So it has a
    width even where no image differs. Of single answers, where each difference is -1, 0 or 1, it is Bonett and Price's.

    Args:
        differences: One for each image, at least one, each in [-1, 1].
        z: Quantile of the normal distribution; 1.96 gives 95 %.

    Source:
        Bonett and Price 2012, "Adjusted Wald confidence interval for a difference of binomial proportions based on paired
        data", Journal of Educational and Behavioral Statistics 37, p. 479.
    """
    return interval_of_changes(sum(differences), sum(value**2 for value in differences), len(differences), z)


def interval_of_changes(total: float | int, squares: float | int, count: int, z: float = 1.96) -> tuple[float, float]:
    """Return what `paired_interval` does, of the sum of the differences, the sum of their squares, and their number.

    Where a difference is -1, 0 or 1 the sum of the squares is the number of images that differ.
    """
    centre, square = total / (count + 2), (squares + 2) / (count + 2)
    reach = z * (max(0.0, square - centre**2) / (count + 2)) ** 0.5
    return max(-1.0, centre - reach), min(1.0, centre + reach)


def weighted_interval(parts: Sequence[tuple[float, tuple[float | int, int]]], z: float = 1.96) -> tuple[float, float]:
    """Return the interval of a weighted sum of shares, as if each were of images of its own.

    The distances from the shares to the ends of their Wilson intervals add up as squares. Of one share minus another it is
    Newcombe's. Where shares are of the same images, which models tend to get right together, it is wider than it need be.

    Args:
        parts: Weight, and hits and trials, at least one, of each share.
        z: Quantile of the normal distribution; 1.96 gives 95 %.

    Source:
        Zou, Huang and Zhang 2009, "A note on confidence interval estimation for a linear function of binomial proportions",
        Computational Statistics and Data Analysis 53, p. 1080. Newcombe 1998, "Interval estimation for the difference between
        independent proportions", Statistics in Medicine 17, p. 873, method 10.
    """
    total, down, up = 0.0, 0.0, 0.0
    for weight, (hits, count) in parts:
        share = hits / count
        ends = [weight * (end - share) for end in wilson_interval(hits, count, z)]
        total, down, up = total + weight * share, down + min(ends) ** 2, up + max(ends) ** 2
    return total - down**0.5, total + up**0.5
