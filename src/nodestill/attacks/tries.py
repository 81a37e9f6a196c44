"""One attack of the protocol `sound` on one batch: run it, then score what came out on the deployed model."""

from collections.abc import Callable
from functools import reduce
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from nodestill.attacks.apgd import apgd, apgd_targeted
from nodestill.attacks.autoattack import autoattack
from nodestill.attacks.budget import RADIUS_TOLERANCE, LinfBudget
from nodestill.attacks.gradient import AttackResult
from nodestill.attacks.gradient_attacks import pgd
from nodestill.attacks.hunt import Hunt
from nodestill.attacks.minimum_norm import MinimumNormResult, fast_minimum_norm
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
    """What an attack did to a batch, as the deployed model sees it."""

    fooled: Bool[Tensor, " batch"]
    radius_255: Int64[Tensor, " batch"]
    unconfirmed: Bool[Tensor, " batch"]  # fooled along the path of the gradient only
    bad: Bool[Tensor, " batch"]  # some gradient was zero or not finite
    failed: Bool[Tensor, " batch"]  # the logits of the final image are not finite
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
    if attack is AttackName.SQUARE:
        budget = LinfBudget(eps, steps=hunt.effort.queries)
        made = square(hunt.subject.logits, batch.images, batch.labels, budget, keys=batch.index, seed=hunt.seed)
        return _confirmed(hunt, made, eps, batch)
    if attack is AttackName.AUTOATTACK:
        made = autoattack(hunt.subject.logits, batch.images, batch.labels, LinfBudget(eps), seed=hunt.seed)
        return _confirmed(hunt, made, eps, batch)
    return _along_paths(hunt, eps, batch, hunt.effort.apgd_steps, lambda path, some: _auto_pgd(hunt, attack, eps, path, some))


def _along_paths(hunt: Hunt, eps: int, batch: Batch, steps: int, attack: Callable[[LogitsFn, Batch], AttackResult]) -> Try:
    """Attack along the replayed solve, where that pays; along the deployed one what only the replay took for fooled."""
    replay = hunt.subject.replay
    if replay is None or steps < _WORTH_REPLAYING:
        return _confirmed(hunt, attack(hunt.subject.logits, batch), eps, batch)
    first = _confirmed(hunt, attack(replay(batch.images), batch), eps, batch)
    if not bool(first.unconfirmed.any()):
        return first
    rest = Batch(*[part[first.unconfirmed] for part in batch]) if hunt.subject.batch_independent else batch
    where = first.unconfirmed if hunt.subject.batch_independent else torch.ones_like(first.unconfirmed)
    return _joined(first, _confirmed(hunt, attack(hunt.subject.logits, rest), eps, rest), where)


def _auto_pgd(hunt: Hunt, attack: AttackName, eps: int, path: LogitsFn, batch: Batch) -> AttackResult:
    budget, keys, seed = LinfBudget(eps, steps=hunt.effort.apgd_steps), batch.index, hunt.seed
    if attack is AttackName.APGD_CE:
        return apgd(path, batch.images, batch.labels, budget, keys=keys, seed=seed)
    return apgd_targeted(path, batch.images, batch.labels, budget, keys=keys, seed=seed, targets=hunt.effort.targets)


def _in_two_tries(hunt: Hunt, attack: AttackName, eps: int, batch: Batch, wanted: Bool[Tensor, " batch"]) -> Try:
    """Run a few large steps on all images, then many on those that are left."""
    quick = min(_QUICK_STEPS, hunt.effort.steps)
    first = _in_signs(hunt, attack, eps, batch, quick)
    left = ~first.fooled & wanted
    if not bool(left.any()) or hunt.effort.steps == quick:
        return first
    if not hunt.subject.batch_independent:
        return _joined(first, _in_signs(hunt, attack, eps, batch, hunt.effort.steps), torch.ones_like(left))
    rest = Batch(*[part[left] for part in batch])
    return _joined(first, _in_signs(hunt, attack, eps, rest, hunt.effort.steps), left)


def _in_signs(hunt: Hunt, attack: AttackName, eps: int, batch: Batch, steps: int) -> Try:
    """Run PGD or MI-FGSM; the longer of two tries of PGD starts elsewhere."""
    budget, seed = LinfBudget(eps, max(1, -(-eps // 4), -(-eps // steps)), steps), hunt.seed + (steps > _QUICK_STEPS)

    def run(path: LogitsFn, some: Batch) -> AttackResult:
        if attack is AttackName.MI_FGSM:
            return mi_fgsm(path, some.images, some.labels, budget, until_fooled=True)
        return pgd(path, some.images, some.labels, budget, keys=some.index, seed=seed, until_fooled=True)

    return _along_paths(hunt, eps, batch, steps, run)


def _joined(first: Try, second: Try, where: Bool[Tensor, " batch"]) -> Try:
    """Put the results of a second try, made where it says, over those of a first; what fell in either fell."""
    fooled, failed, images = first.fooled.clone(), first.failed.clone(), first.images.clone()
    newly = torch.zeros_like(fooled)
    newly[where] = second.fooled & ~first.fooled[where]
    images[newly] = second.images[newly[where]]
    failed[newly] = second.failed[newly[where]]
    bad, unconfirmed = first.bad.clone(), first.unconfirmed.clone()
    bad[where] |= second.bad
    unconfirmed[where] |= second.unconfirmed
    calls = first.calls + second.calls
    return Try(fooled | newly, first.radius_255, unconfirmed & ~(fooled | newly), bad, failed, calls, images)


def _confirmed(hunt: Hunt, result: AttackResult, eps: int, batch: Batch) -> Try:
    """Score final images on the deployed model: nothing else counts."""
    return _scored(hunt, batch, result.images, result.fooled, torch.full_like(batch.labels, eps), result)


def _scored(
    hunt: Hunt, batch: Batch, images: Images, claimed: Tensor, radius: Tensor, result: AttackResult | MinimumNormResult
) -> Try:
    with torch.no_grad():
        predicted = predictions(hunt.subject.logits(images))
    fooled = predicted != batch.labels
    calls = float(result.gradient_calls * len(fooled))
    return Try(fooled, radius, claimed & ~fooled, result.bad_gradients > 0, predicted == FAILED, calls, images)


def _from_kin(hunt: Hunt, eps: int, batch: Batch) -> Try:
    """Try images that MI-FGSM made on each of the other models."""
    budget, every = LinfBudget(eps, max(1, -(-eps // 4)), hunt.effort.steps), torch.ones_like(batch.labels, dtype=torch.bool)
    tries = []
    for logits_fn in hunt.kin.values():
        made = mi_fgsm(logits_fn, batch.images, batch.labels, budget)
        mine = made._replace(bad_gradients=torch.zeros_like(made.bad_gradients))  # of a relative: nothing about this model
        tries.append(_confirmed(hunt, mine, eps, batch)._replace(unconfirmed=~every))
    return reduce(lambda one, other: _joined(one, other, every), tries)


def _nearest(hunt: Hunt, batch: Batch) -> Try:
    """Run the minimum-norm attack once. Its radius is rounded up to whole 1/255, and the images moved out as far.

    The images it found lie on the boundary of the path they were found along; moved out, they are across the deployed one too.
    """
    steps, replay = hunt.effort.minimum_norm_steps, hunt.subject.replay
    path = replay(batch.images) if replay is not None and steps >= _WORTH_REPLAYING else hunt.subject.logits
    found = fast_minimum_norm(path, batch.images, batch.labels, steps=steps)
    usable = found.radius.isfinite() & (found.radius > 0)
    radius = torch.where(usable, _whole(found.radius), NEVER)
    stretch = torch.where(usable, radius / torch.where(usable, found.radius, 1), 1).to(batch.images)[:, None, None, None]
    further = (batch.images + stretch * (found.images - batch.images)).clamp(0, 1)
    best = _scored(hunt, batch, found.images, usable, radius, found)
    best = _joined(best, _scored(hunt, batch, further, usable, radius, found)._replace(calls=0.0), torch.ones_like(usable))
    return best._replace(fooled=best.fooled & usable)


def _whole(radius: Float[Tensor, " batch"]) -> Int64[Tensor, " batch"]:
    """Return radii in 1/255 rounded up, except where they are whole up to the rounding that a budget allows."""
    return (torch.nan_to_num(radius, posinf=NEVER) - 255 * RADIUS_TOLERANCE).ceil().clamp(1, NEVER).long()
