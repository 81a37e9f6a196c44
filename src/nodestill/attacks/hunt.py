"""What the protocol `sound` attacks and how hard it tries, as values, and how images come together in batches."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from jaxtyping import Bool
from torch import Tensor

from nodestill.attacks.subject import LogitsFn, Subject
from nodestill.data import Batch, ImageSet, eval_batches
from nodestill.errors import InputError


@dataclass(frozen=True)
class Effort:
    """How hard each attack of the protocol tries.

    Args:
        steps: Gradient steps of PGD and MI-FGSM, of the size eps / 4 rounded up; the paper's rule has at most 24.
        apgd_steps: Gradient steps of Auto-PGD.
        targets: Classes that targeted Auto-PGD aims at, the likeliest first.
        minimum_norm_steps: Gradient steps of the minimum-norm attack.
        queries: Of the Square attack, per image and radius.
    """

    steps: int = 20
    apgd_steps: int = 50
    targets: int = 3
    minimum_norm_steps: int = 100
    queries: int = 500

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise InputError(f"{name} must be at least 1, got {value}.")


@dataclass(frozen=True)
class Hunt:
    """What is attacked, and with what.

    Args:
        subject: The model, as deployed, in evaluation mode.
        data: The images to attack.
        batch_size: Images per batch, >= 1.
        effort: How hard each attack tries.
        seed: Of random starts.
        kin: Other models by name, on whose images the transfer attack tries the subject.
    """

    subject: Subject
    data: ImageSet
    batch_size: int
    effort: Effort = field(default_factory=Effort)
    seed: int = 0
    kin: Mapping[str, LogitsFn] = field(default_factory=dict)


def batches_of(subject: Subject, data: ImageSet, batch_size: int, active: Bool[Tensor, " count"]) -> Iterator[Batch]:
    """Yield the active images in batches of their own, or, where images depend on their batch, the batches that hold one.

    Args:
        subject: The model; says whether it classifies each image by itself.
        data: All images.
        batch_size: Images per batch, >= 1.
        active: Which images are wanted.
    """
    if not subject.batch_independent:
        whole = eval_batches(data, batch_size)
        yield from (batch for batch in whole if bool(active[batch.index].any()))
        return
    for places in active.nonzero()[:, 0].split(batch_size):
        if len(places):
            yield data.at(places)
