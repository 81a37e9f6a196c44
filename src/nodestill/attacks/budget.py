"""How far an attack may move a pixel and how many steps it gets, in integers of 1/255.

Integers, because they join and label rows exactly and because the paper's step rule is wrong for a rounded radius:
0.0314 * 255 * 1.25 is just below 10, while 8 * 5 // 4 is 10.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from nodestill.errors import InputError, NodestillError
from nodestill.shapes import Images

RADIUS_TOLERANCE = 1e-6  # rounding of x + eps in float32 is below 1e-7; anything larger is a mistake in an attack


@dataclass(frozen=True)
class LinfBudget:
    """Radius, step and number of steps of an L-infinity attack.

    Args:
        eps_255: Radius in 1/255, 0 ... 255. With 0 the only admissible image is the clean one.
        step_255: Size of a step in 1/255, >= 1.
        steps: Number of steps, >= 0. With 0 the starting point is scored.

    Raises:
        InputError: If a value is out of range.
    """

    eps_255: int
    step_255: int = 1
    steps: int = 10

    def __post_init__(self) -> None:
        if not all(isinstance(value, int) for value in (self.eps_255, self.step_255, self.steps)):
            given = (self.eps_255, self.step_255, self.steps)
            raise InputError(f"eps_255, step_255 and steps count, the first two in 1/255, got {given}. 8/255 is eps_255=8.")
        if not 0 <= self.eps_255 <= 255:
            raise InputError(f"eps_255 must lie in 0 ... 255, got {self.eps_255}. It counts 1/255; 8 is usual.")
        if self.step_255 < 1:
            raise InputError(f"step_255 must be at least 1, got {self.step_255}. It counts 1/255; 1 is the paper's.")
        if self.steps < 0:
            raise InputError(f"steps must not be negative, got {self.steps}. paper_budget(eps_255) chooses it.")

    @property
    def eps(self) -> float:
        """Radius in pixel units, where an image covers [0, 1]."""
        return self.eps_255 / 255

    @property
    def step(self) -> float:
        """Size of a step in pixel units, where an image covers [0, 1]."""
        return self.step_255 / 255


def paper_budget(eps_255: int) -> LinfBudget:
    """Return the paper's budget at one radius: steps of 1/255, min(eps + 4, floor(1.25 eps)) of them.

    Enough steps to reach the face of the box from its centre, but not from a random start: PGD under this rule is weak.

    Args:
        eps_255: Radius in 1/255, 0 ... 255.

    Returns:
        The budget; zero steps for a zero radius.

    Raises:
        InputError: If the radius is out of range.

    Source:
        Chu et al. 2022, "Improving Neural ODEs via Knowledge Distillation", section 4; the rule is that of
        Kurakin et al. 2017, "Adversarial examples in the physical world", section 2.2.
    """
    return LinfBudget(eps_255, step_255=1, steps=min(eps_255 + 4, 5 * eps_255 // 4))


def project(adversarial: Tensor, images: Images, eps: float) -> Images:
    """Return the nearest images within the radius and the range [0, 1].

    Both sets are boxes that contain `images`, so clipping to one after the other is the projection on both.

    Args:
        adversarial: Floats, shape of `images`.
        images: Clean images in [0, 1], shape (batch, 3, height, width).
        eps: Radius in pixel units, >= 0.

    Returns:
        Images in [0, 1], at most `eps` from `images` in every pixel, up to rounding.
    """
    return torch.clamp(adversarial, (images - eps).clamp(min=0), (images + eps).clamp(max=1))


def require_admissible(adversarial: Images, images: Images, eps: float) -> None:
    """Check what an attack is about to hand out.

    Args:
        adversarial: Perturbed images, shape of `images`.
        images: Clean images in [0, 1], shape (batch, 3, height, width).
        eps: Radius in pixel units, >= 0.

    Raises:
        NodestillError: If a pixel is further than `eps` + 1e-6 from the clean one, or outside [0, 1], or NaN.
    """
    inside = (adversarial - images).abs() <= eps + RADIUS_TOLERANCE
    in_range = (adversarial >= 0) & (adversarial <= 1)
    if not bool((inside & in_range).all()):
        far = float((adversarial - images).abs().amax()) * 255
        raise NodestillError(
            f"Internal breach: an attack moved a pixel by {far:.6g}/255 or out of [0, 1]; at most {eps * 255:.6g}/255 "
            "was allowed. The attack has a mistake: please report it with the model's device and precision."
        )
