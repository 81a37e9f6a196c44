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
