"""How the models of an experiment are attacked, as a frozen value."""

from dataclasses import dataclass, field

from nodestill.attacks import AttackName, Effort, Protocol
from nodestill.experiments.required import require

PAPERS_ATTACKS = (AttackName.PGD, AttackName.MI_FGSM)


@dataclass(frozen=True)
class RobustnessRecipe:
    """How models are attacked.

    Args:
        protocol: Whose rules; see `nodestill.attacks`.
        attacks: Which attacks.
        eps_255: Radii in 1/255, increasing.
        images: Number of test images, from the first; None for all.
        batch_size: Images attacked at a time.
        seed: Of the random starts.
        effort: How hard each attack of the protocol `sound` tries.
    """

    protocol: Protocol = Protocol.CHU2022
    attacks: tuple[AttackName, ...] = PAPERS_ATTACKS
    eps_255: tuple[int, ...] = tuple(range(21))
    images: int | None = None
    batch_size: int = 250
    seed: int = 0
    effort: Effort = field(default=Effort(), metadata={"later": True})

    def __post_init__(self) -> None:
        radii = self.eps_255
        ordered = list(radii) == sorted(set(radii)) and all(0 <= eps <= 255 for eps in radii)
        require(ordered and bool(radii), "robustness.eps_255", radii, "be increasing whole numbers of 1/255 from 0 to 255")
        known = [attack.value for attack in (PAPERS_ATTACKS if self.protocol is Protocol.CHU2022 else AttackName)]
        named = [attack.value for attack in self.attacks]
        require(bool(named), "robustness.attacks", named, f"name at least one: {', '.join(known)}")
        whose = f"be among {', '.join(known)}, those of the protocol {self.protocol.value}"
        require(set(named) <= set(known), "robustness.attacks", named, whose)
        require(self.images is None or self.images >= 1, "robustness.images", self.images, "be at least 1, or none for all")
        require(self.batch_size >= 1, "robustness.batch_size", self.batch_size, "be at least 1")
