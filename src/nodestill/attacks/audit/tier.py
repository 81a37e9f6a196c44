"""How hard an audit tries."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tier:
    """Numbers of images, steps and queries.

    Args:
        name: What the tier is called.
        images: Test images, from the first; None for all.
        steps: Gradient steps of the native attack and of those it is compared with.
        restarts: Of the native attack, in the check of its budget.
        apgd_steps: Of Auto-PGD.
        targets: Classes of targeted Auto-PGD.
        minimum_norm_steps: Of the minimum-norm attack.
        queries: Of the Square attack, per image.
        noise: Random images within the radius, per image.
        resolution: Smallest share of images that the tier tells from none: so few images cannot decide about a smaller one.
    """

    name: str
    images: int | None
    steps: int
    restarts: int
    apgd_steps: int
    targets: int
    minimum_norm_steps: int
    queries: int
    noise: int
    resolution: float = 0.0
