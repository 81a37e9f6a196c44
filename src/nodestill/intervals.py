"""Uncertainty of a share that was measured on a finite number of images."""


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
