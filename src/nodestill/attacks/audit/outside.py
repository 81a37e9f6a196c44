"""Attacks that never see the model's gradient: images made on other models, random search, noise. They should be weaker."""

import torch
from jaxtyping import Bool
from torch import Tensor

from nodestill.attacks.audit import limits
from nodestill.attacks.audit.case import Case
from nodestill.attacks.audit.verdict import CheckResult, share_result
from nodestill.attacks.budget import LinfBudget, project
from nodestill.attacks.gradient_attacks import pgd
from nodestill.attacks.momentum import mi_fgsm
from nodestill.attacks.random_start import keyed_uniform
from nodestill.attacks.square import square
from nodestill.attacks.subject import LogitsFn, wrong
from nodestill.data import Batch
from nodestill.shapes import Images


def transfer(case: Case) -> CheckResult | None:
    """Do images made on other models fool where the white-box attack does not? (5)"""
    if not case.kin:
        return None
    counts, union = {}, torch.zeros_like(case.fooled)
    for name, logits_fn in case.kin.items():
        fooled = case.newly_fooled(lambda batch, fn=logits_fn: _momentum_images(case, fn, batch))
        fooled |= case.newly_fooled(lambda batch, fn=logits_fn: _pgd_images(case, fn, batch))
        counts[name], union = int(fooled.sum()), union | fooled
    what = f"fall to images made on {', '.join(counts)}, but not to the attack on the model itself: its gradient is masked"
    hits, warn = int(union.sum()), limits.TRANSFERRED_WARN
    return share_result("transfer", hits, len(case.data), case.limit(limits.TRANSFERRED), what, warn=warn, details=counts)


def _momentum_images(case: Case, logits_fn: LogitsFn, batch: Batch) -> Images:
    return mi_fgsm(logits_fn, batch.images, batch.labels, case.budget).images


def _pgd_images(case: Case, logits_fn: LogitsFn, batch: Batch) -> Images:
    return pgd(logits_fn, batch.images, batch.labels, case.budget, keys=batch.index, seed=case.seed).images


def black_box(case: Case) -> CheckResult:
    """Does random search fool where the white-box attack does not? (9)"""
    budget = LinfBudget(case.eps_255, steps=case.tier.queries)
    by_square = case.newly_fooled(
        lambda b: square(case.subject.logits, b.images, b.labels, budget, keys=b.index, seed=case.seed).images
    )
    by_noise = _fooled_by_noise(case)
    counts = {
        f"Square, {case.tier.queries} queries": int(by_square.sum()),
        f"{case.tier.noise} draws of noise": int(by_noise.sum()),
    }
    what = "fall to an attack that sees no gradient, but not to the one that does"
    hits, warn = int((by_square | by_noise).sum()), limits.TRANSFERRED_WARN
    return share_result("black-box", hits, len(case.data), case.limit(limits.TRANSFERRED), what, warn=warn, details=counts)


def _fooled_by_noise(case: Case) -> Bool[Tensor, " count"]:
    fooled, eps = torch.zeros_like(case.fooled), case.eps_255 / 255
    for draw in range(case.tier.noise):
        for batch in case.batches(case.survivors & ~fooled):
            noise = keyed_uniform(batch.index, case.seed + 7919 * (draw + 1), case.eps_255, batch.images[0].numel())
            moved = project(batch.images + eps * noise.view(batch.images.shape).sign(), batch.images, eps)
            fooled[batch.index] |= wrong(case.subject, moved, batch.labels)
    return fooled & case.survivors
