"""One attack of the protocol `sound` on one batch: run it, then score what came out on the deployed model."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from nodestill.attacks.apgd import apgd, apgd_targeted
from nodestill.attacks.budget import LinfBudget
from nodestill.attacks.gradient import AttackResult
from nodestill.attacks.gradient_attacks import pgd
from nodestill.attacks.hunt import Hunt
from nodestill.attacks.minimum_norm import fast_minimum_norm
from nodestill.attacks.momentum import mi_fgsm
from nodestill.attacks.rows import AttackName
from nodestill.attacks.square import square
from nodestill.attacks.subject import FAILED, LogitsFn, predictions
from nodestill.data import Batch
from nodestill.shapes import Images

NEVER = 256  # the radius of an image that nothing has fooled: larger than any
_SIGN_ATTACKS = (AttackName.PGD, AttackName.MI_FGSM)
_QUICK_STEPS = 4  # of the first of two tries of PGD and MI-FGSM: most images fall to it, the others get the long one
_WORTH_REPLAYING = 8  # gradient steps from which recording a solve, one more forward pass, pays


class Try(NamedTuple):
    fooled: Bool[Tensor, " batch"]
    radius_255: Int64[Tensor, " batch"]
    unconfirmed: int
    bad: Bool[Tensor, " batch"]
    calls: float  # gradients, summed over images
    images: Images


def tried(hunt: Hunt, attack: AttackName, eps: int, batch: Batch, wanted: Bool[Tensor, " batch"]) -> Try:
    """Attack a batch and score what came out on the deployed model."""
    if attack is AttackName.FMN:
        return _nearest(hunt, batch)
    if attack in _SIGN_ATTACKS:
        return _in_two_tries(hunt, attack, eps, batch, wanted)
    if attack is AttackName.TRANSFER:
        return _from_kin(hunt, eps, batch)
    return _confirmed(hunt, _attacked(hunt, attack, eps, batch), eps, batch)


def _attacked(hunt: Hunt, attack: AttackName, eps: int, batch: Batch) -> AttackResult:
    images, labels, keys, seed = batch.images, batch.labels, batch.index, hunt.seed
    if attack is AttackName.SQUARE:
        budget = LinfBudget(eps, steps=hunt.effort.queries)
        return square(hunt.subject.logits, images, labels, budget, keys=keys, seed=seed)
    budget = LinfBudget(eps, steps=hunt.effort.apgd_steps)
    path = _path(hunt, batch, budget.steps)
    if attack is AttackName.APGD_CE:
        return apgd(path, images, labels, budget, keys=keys, seed=seed)
    return apgd_targeted(path, images, labels, budget, keys=keys, seed=seed, targets=hunt.effort.targets)


def _path(hunt: Hunt, batch: Batch, steps: int) -> LogitsFn:
    """Return what a gradient is taken of: the solve of the clean images taken again, where that pays."""
    replay = hunt.subject.replay
    return hunt.subject.logits if replay is None or steps < _WORTH_REPLAYING else replay(batch.images)


def _in_two_tries(hunt: Hunt, attack: AttackName, eps: int, batch: Batch, wanted: Bool[Tensor, " batch"]) -> Try:
    """Run a few large steps on all images, then many on those that are left."""
    first = _confirmed(hunt, _sign_steps(hunt, attack, eps, batch, min(_QUICK_STEPS, hunt.effort.steps)), eps, batch)
    left = ~first.fooled & wanted
    if not bool(left.any()) or hunt.effort.steps <= _QUICK_STEPS:
        return first
    if not hunt.subject.batch_independent:
        second = _confirmed(hunt, _sign_steps(hunt, attack, eps, batch, hunt.effort.steps), eps, batch)
        return _joined(first, second, torch.ones_like(left))
    rest = Batch(*[part[left] for part in batch])
    return _joined(first, _confirmed(hunt, _sign_steps(hunt, attack, eps, rest, hunt.effort.steps), eps, rest), left)


def _sign_steps(hunt: Hunt, attack: AttackName, eps: int, batch: Batch, steps: int) -> AttackResult:
    budget = LinfBudget(eps, max(1, -(-eps // 4), -(-eps // steps)), steps)
    path, images, labels = _path(hunt, batch, steps), batch.images, batch.labels
    if attack is AttackName.MI_FGSM:
        return mi_fgsm(path, images, labels, budget, until_fooled=True)
    seed = hunt.seed + (steps > _QUICK_STEPS)  # the second try starts elsewhere
    return pgd(path, images, labels, budget, keys=batch.index, seed=seed, until_fooled=True)


def _joined(first: Try, second: Try, where: Bool[Tensor, " batch"]) -> Try:
    """Put the results of a second try, made where it says, over those of a first; what fell in either fell."""
    fooled, images = first.fooled.clone(), first.images.clone()
    newly = torch.zeros_like(fooled)
    newly[where] = second.fooled & ~first.fooled[where]
    images[newly] = second.images[second.fooled & ~first.fooled[where]]
    bad = first.bad.clone()
    bad[where] |= second.bad
    unconfirmed = first.unconfirmed + second.unconfirmed
    return Try(fooled | newly, first.radius_255, unconfirmed, bad, first.calls + second.calls, images)


def _confirmed(hunt: Hunt, result: AttackResult, eps: int, batch: Batch) -> Try:
    """Score final images on the deployed model: nothing else counts."""
    fooled = _fooled(hunt, result.images, batch)
    unconfirmed = int((result.fooled & ~fooled).sum())
    radius = torch.full_like(batch.labels, eps)
    return Try(fooled, radius, unconfirmed, result.bad_gradients > 0, result.gradient_calls * len(fooled), result.images)


def _from_kin(hunt: Hunt, eps: int, batch: Batch) -> Try:
    """Try images that MI-FGSM made on each of the other models."""
    budget = LinfBudget(eps, max(1, -(-eps // 4)), hunt.effort.steps)
    total = Try(
        torch.zeros_like(batch.labels, dtype=torch.bool),
        torch.full_like(batch.labels, eps),
        0,
        torch.zeros_like(batch.labels, dtype=torch.bool),
        0.0,
        batch.images,
    )
    for logits_fn in hunt.kin.values():
        made = mi_fgsm(logits_fn, batch.images, batch.labels, budget)._replace(bad_gradients=torch.zeros_like(batch.labels))
        tried = _confirmed(hunt, made, eps, batch)._replace(unconfirmed=0)
        total = _joined(total, tried, torch.ones_like(total.fooled))
    return total


def _nearest(hunt: Hunt, batch: Batch) -> Try:
    """Run the minimum-norm attack once, and round the radius it found up to whole 1/255."""
    steps = hunt.effort.minimum_norm_steps
    found = fast_minimum_norm(_path(hunt, batch, steps), batch.images, batch.labels, steps=steps)
    fooled = _fooled(hunt, found.images, batch) & found.radius.isfinite()
    radius = torch.where(fooled, _whole(found.radius), NEVER)
    unconfirmed = int((found.radius.isfinite() & ~fooled).sum())
    return Try(fooled, radius, unconfirmed, found.bad_gradients > 0, found.gradient_calls * len(fooled), found.images)


def _whole(radius: Float[Tensor, " batch"]) -> Int64[Tensor, " batch"]:
    return (torch.nan_to_num(radius, posinf=NEVER) - 1e-3).ceil().clamp(1, NEVER).long()


def _fooled(hunt: Hunt, images: Images, batch: Batch) -> Bool[Tensor, " batch"]:
    with torch.no_grad():
        predicted = predictions(hunt.subject.logits(images))
    return (predicted != batch.labels) | (predicted == FAILED)
