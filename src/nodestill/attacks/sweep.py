"""Accuracy against the radius of an attack: one row per attack and radius, handed out as soon as it is complete.

PGD has the radius in the outer loop, because its starts differ by radius: a killed sweep loses at most one radius.
MI-FGSM has the batch in the outer loop, because radii share steps (`mi_fgsm_curve`): its rows come together at the end.
Batches are never thinned out: this protocol attacks and scores every image, and a batch that couples its images stays
the batch that it was.
"""

from collections.abc import Collection, Iterator, Sequence
from time import perf_counter
from typing import NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

from nodestill.attacks.budget import paper_budget
from nodestill.attacks.gradient import AttackResult
from nodestill.attacks.gradient_attacks import pgd
from nodestill.attacks.momentum import mi_fgsm_curve
from nodestill.attacks.rows import AttackName, Outcome, Protocol, RobustnessRow, Setting, summarise
from nodestill.attacks.subject import Subject, predictions
from nodestill.data import Batch, ImageSet, eval_batches
from nodestill.shapes import Images, Labels

_MOMENTUM = 1.0  # of MI-FGSM in every protocol: the paper's


class _Sweep(NamedTuple):
    subject: Subject
    data: ImageSet
    protocol: Protocol
    batch_size: int
    seed: int
    clean: Int64[Tensor, " count"]  # predictions of the clean images

    def batches(self) -> Iterator[Batch]:
        return eval_batches(self.data, self.batch_size)

    def row(self, attack: AttackName, eps_255: int, outcomes: Sequence[Outcome]) -> RobustnessRow:
        is_pgd = attack is AttackName.PGD
        momentum = None if is_pgd else _MOMENTUM
        setting = Setting(self.protocol, attack, paper_budget(eps_255), momentum, is_pgd, self.seed)
        return summarise(setting, outcomes, self.clean, self.data.labels, self.data.num_classes)

    def outcome(self, result: AttackResult, since: float) -> Outcome:
        evaluations = None
        if self.subject.evaluations is not None:
            with torch.no_grad():
                evaluations = self.subject.evaluations(result.images)
        seconds = perf_counter() - since
        return Outcome(result.predictions, result.bad_gradients, evaluations, result.gradient_calls, seconds)


def robustness_sweep(
    subject: Subject,
    data: ImageSet,
    protocol: Protocol,
    attacks: Sequence[AttackName],
    eps_255: Sequence[int],
    batch_size: int,
    *,
    seed: int = 0,
    done: Collection[tuple[AttackName, int]] = (),
) -> Iterator[RobustnessRow]:
    """Attack every image at every radius; hand out a row for each attack and radius.

    The rows of PGD come one by one, those of MI-FGSM together after the last batch. At radius 0 a row is the clean
    accuracy. Which other rows are asked for changes nothing in a row but `seconds` and MI-FGSM's `gradient_calls`.

    Args:
        subject: The model, as deployed, in evaluation mode.
        data: The images to attack, all of them.
        protocol: What is attacked and scored.
        attacks: Attacks to run, in this order.
        eps_255: Radii in 1/255, 0 ... 255, in any order; rows come by increasing radius.
        batch_size: Images per batch, >= 1.
        seed: Seed of the random starts.
        done: Attack and radius of the rows to skip, because an earlier run wrote them.

    Returns:
        The rows that are not yet done.

    Raises:
        InputError: If a radius or the batch size is out of range.

    Source:
        Chu et al. 2022, section 4, for `Protocol.CHU2022`.
    """
    eval_batches(data, batch_size)  # refuses a bad size here and now, not when the first row is asked for
    radii = [paper_budget(eps).eps_255 for eps in sorted(set(eps_255))]
    missing = {attack: [eps for eps in radii if (attack, eps) not in done] for attack in attacks}
    return _rows(subject, data, protocol, {attack: left for attack, left in missing.items() if left}, batch_size, seed)


def _rows(
    subject: Subject,
    data: ImageSet,
    protocol: Protocol,
    missing: dict[AttackName, list[int]],
    batch_size: int,
    seed: int,
) -> Iterator[RobustnessRow]:
    if not missing:
        return
    sweep = _Sweep(subject, data, protocol, batch_size, seed, _clean_predictions(subject, data, batch_size))
    for attack, radii in missing.items():
        match attack:
            case AttackName.PGD:
                yield from _pgd_rows(sweep, radii)
            case AttackName.MI_FGSM:
                yield from _mi_fgsm_rows(sweep, radii)


def _pgd_rows(sweep: _Sweep, radii: list[int]) -> Iterator[RobustnessRow]:
    for eps in radii:
        outcomes, budget = [], paper_budget(eps)
        for batch in sweep.batches():
            since = perf_counter()
            result = pgd(sweep.subject.logits, batch.images, batch.labels, budget, keys=batch.index, seed=sweep.seed)
            outcomes.append(sweep.outcome(result, since))
        yield sweep.row(AttackName.PGD, eps, outcomes)


def _mi_fgsm_rows(sweep: _Sweep, radii: list[int]) -> Iterator[RobustnessRow]:
    outcomes: dict[int, list[Outcome]] = {eps: [] for eps in radii}
    for batch in sweep.batches():
        since = perf_counter()
        curve = mi_fgsm_curve(sweep.subject.logits, batch.images, batch.labels, radii, momentum=_MOMENTUM)
        for eps, result in curve:
            outcomes[eps].append(sweep.outcome(result, since))
            since = perf_counter()
    for eps in radii:
        yield sweep.row(AttackName.MI_FGSM, eps, outcomes[eps])


def _clean_predictions(subject: Subject, data: ImageSet, batch_size: int) -> Int64[Tensor, " count"]:
    with torch.no_grad():
        return torch.cat([predictions(subject.logits(batch.images)) for batch in eval_batches(data, batch_size)])


class Gallery(NamedTuple):
    """A few images before and after an attack, to look at."""

    images: Images
    adversarial: Images
    labels: Labels
    clean_predictions: Int64[Tensor, " batch"]  # -1 where the logits are not finite
    adversarial_predictions: Int64[Tensor, " batch"]


def adversarial_examples(subject: Subject, data: ImageSet, eps_255: int, count: int, *, seed: int = 0) -> Gallery:
    """Attack the first images of a set by PGD with the paper's budget, as one batch.

    Args:
        subject: The model, as deployed, in evaluation mode.
        data: The image set.
        eps_255: Radius in 1/255, 0 ... 255.
        count: How many images, >= 1; at most all of them are taken.
        seed: Seed of the random starts: with the sweep's seed the starts are the sweep's.

    Returns:
        Clean and adversarial images with labels and predictions.

    Raises:
        InputError: If the radius or the count is out of range.
    """
    batch = next(iter(eval_batches(data.first(count), count)))
    budget = paper_budget(eps_255)
    result = pgd(subject.logits, batch.images, batch.labels, budget, keys=batch.index, seed=seed)
    with torch.no_grad():
        clean = predictions(subject.logits(batch.images))
    return Gallery(batch.images, result.images, batch.labels, clean, result.predictions)
