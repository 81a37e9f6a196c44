"""One measured line of a robustness sweep, and how the outcomes of its batches add up to it.

Rows are JSON as they stand (`dataclasses.asdict`). The counts that could make an accuracy look better than it is belong
to the row: failed images, zero gradients, the classes predicted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import torch
from jaxtyping import Int, Int64
from torch import Tensor

from nodestill.attacks.budget import LinfBudget
from nodestill.attacks.subject import FAILED
from nodestill.flags import to_hex
from nodestill.intervals import wilson_interval
from nodestill.shapes import Labels


class AttackName(Enum):
    """Attacks that a sweep can run; the paper's protocol has the first two."""

    PGD = "pgd"
    MI_FGSM = "mi-fgsm"
    APGD_CE = "apgd-ce"  # Auto-PGD on the cross-entropy
    APGD_DLR = "apgd-dlr"  # Auto-PGD on the targeted difference of logits ratio, one run per likely class
    FMN = "fmn"  # fast minimum norm: every image's own smallest radius in one run
    TRANSFER = "transfer"  # images made on other models
    SQUARE = "square"  # random search, without gradients
    AUTOATTACK = "autoattack"  # its maintainers' code, to check ours; only where it is asked for


class Protocol(Enum):
    """What is attacked, how hard, and what is scored."""

    CHU2022 = "chu2022"  # the paper's: every image, its last iterate, `paper_budget`, one start
    SOUND = "sound"  # worst case: an image is robust at a radius only if no attack fooled it at that radius or a smaller one


@dataclass(frozen=True)
class RobustnessRow:
    """What one attack left of a model's accuracy at one radius. Fractions lie in [0, 1]."""

    protocol: str  # value of a `Protocol`
    attack: str  # value of an `AttackName`
    eps_255: int
    step_255: int
    steps: int
    momentum: float | None  # None: the attack has none
    random_start: bool
    seed: int
    images: int  # how many were attacked: all of the set, those that were wrong from the start too
    clean_accuracy: float
    accuracy: float  # correct / images: what the paper reports
    robust_accuracy: float  # robust / images
    correct: int  # predicted as their label at the last iterate
    robust: int  # of those, the ones that were right on the clean image too
    wilson_low: float  # 95 % interval of `accuracy`
    wilson_high: float
    bad_gradient_images: int  # at least one step had a zero or non-finite gradient
    failed_images: int  # logits were not finite: not correct, not robust
    gradient_calls: int  # per image, not counting those shared with a smaller radius of the same sweep
    mean_evaluations: float | None  # calls of f per adversarial image; None if the subject does not count them
    predicted: tuple[int, ...]  # adversarial images by predicted class; failed images are in none
    survivors: tuple[int, ...]  # images counted in `correct`, by class
    which: str  # those images, as `nodestill.flags` writes them
    seconds: float
    restarts: int = 1
    loss: str = "cross-entropy, summed"
    scored: str = "last iterate"
    schema: int = 1


class Outcome(NamedTuple):
    """What an attack at one radius did to one batch."""

    predictions: Int64[Tensor, " batch"]
    bad_gradients: Int64[Tensor, " batch"]
    evaluations: Int[Tensor, " batch"] | None
    gradient_calls: int
    seconds: float


class Setting(NamedTuple):
    """What an attack was asked to do at one radius."""

    protocol: Protocol
    attack: AttackName
    budget: LinfBudget
    momentum: float | None
    random_start: bool
    seed: int


def summarise(
    setting: Setting,
    outcomes: Sequence[Outcome],
    clean_predictions: Int64[Tensor, " count"],
    labels: Int64[Tensor, " count"],
    num_classes: int,
) -> RobustnessRow:
    """Add up the batches of one attack at one radius.

    Args:
        setting: What was run.
        outcomes: One per batch, in the order of the image set; at least one.
        clean_predictions: Predicted classes of the clean images, -1 for failed ones.
        labels: True classes of the whole set.
        num_classes: Number of classes.

    Returns:
        The row.
    """
    predicted = torch.cat([outcome.predictions for outcome in outcomes])
    bad = torch.cat([outcome.bad_gradients for outcome in outcomes])
    correct = predicted == labels
    robust = correct & (clean_predictions == labels)
    count, hits = len(labels), int(correct.sum())
    low, high = wilson_interval(hits, count)
    return RobustnessRow(
        protocol=setting.protocol.value,
        attack=setting.attack.value,
        eps_255=setting.budget.eps_255,
        step_255=setting.budget.step_255,
        steps=setting.budget.steps,
        momentum=setting.momentum,
        random_start=setting.random_start,
        seed=setting.seed,
        images=count,
        clean_accuracy=int((clean_predictions == labels).sum()) / count,
        accuracy=hits / count,
        robust_accuracy=int(robust.sum()) / count,
        correct=hits,
        robust=int(robust.sum()),
        wilson_low=low,
        wilson_high=high,
        bad_gradient_images=int((bad > 0).sum()),
        failed_images=int((predicted == FAILED).sum()),
        gradient_calls=max(outcome.gradient_calls for outcome in outcomes),
        mean_evaluations=_mean_evaluations(outcomes),
        predicted=_per_class(predicted[predicted != FAILED], num_classes),
        survivors=_per_class(labels[correct], num_classes),
        which=to_hex(correct.tolist()),
        seconds=sum(outcome.seconds for outcome in outcomes),
    )


def _per_class(classes: Labels, num_classes: int) -> tuple[int, ...]:
    # on the host, where it is deterministic in every version of PyTorch
    return tuple(torch.bincount(classes.cpu(), minlength=num_classes).tolist())


def _mean_evaluations(outcomes: Sequence[Outcome]) -> float | None:
    counted = [outcome.evaluations for outcome in outcomes if outcome.evaluations is not None]
    return float(torch.cat(counted).double().mean()) if counted else None
