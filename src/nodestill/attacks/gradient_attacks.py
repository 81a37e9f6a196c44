"""White-box L-infinity attacks that follow the sign of the loss gradient: FGSM and PGD; MI-FGSM is in `momentum.py`.

What is scored is the last iterate, unless `until_fooled` keeps an image where it first fools. The attacks do not restart.
"""

from collections.abc import Callable

import torch
from jaxtyping import Int64
from torch import Tensor

from nodestill.attacks.budget import LinfBudget, project
from nodestill.attacks.gradient import (
    AttackResult,
    all_fooled,
    loss_gradient,
    require_attackable,
    require_keys,
    score,
    where_not_fooled,
)
from nodestill.attacks.losses import AttackLoss, cross_entropy
from nodestill.attacks.momentum import mi_fgsm
from nodestill.attacks.random_start import keyed_uniform
from nodestill.attacks.subject import LogitsFn
from nodestill.shapes import Images, Labels

Attack = Callable[[LogitsFn, Images, Labels, LinfBudget], AttackResult]  # further settings bound by functools.partial


def fgsm(logits_fn: LogitsFn, images: Images, labels: Labels, budget: LinfBudget) -> AttackResult:
    """Perturb images with the fast gradient sign method: one step of the size of the radius.

    x' = clip(x + eps sign ∇L)           (to [0, 1])

    `step_255` and `steps` of the budget are not used.

    Args:
        logits_fn: Maps images in [0, 1] to logits.
        images: Clean images in [0, 1], float32 or float64, shape (batch, 3, height, width).
        labels: True classes, 0 ... classes - 1, shape (batch,).
        budget: Its radius in 1/255.

    Returns:
        Adversarial images in [0, 1] at most `budget.eps` from `images` in every pixel, and how they fared.

    Raises:
        InputError: If images leave [0, 1] or labels do not match the batch.

    Source:
        Goodfellow et al. 2015, "Explaining and Harnessing Adversarial Examples", section 4.
    """
    one_step = LinfBudget(budget.eps_255, max(budget.eps_255, 1), steps=min(budget.eps_255, 1))
    return mi_fgsm(logits_fn, images, labels, one_step, momentum=0.0)


def pgd(
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
    budget: LinfBudget,
    *,
    keys: Int64[Tensor, " batch"],
    seed: int = 0,
    random_start: bool = True,
    loss: AttackLoss = cross_entropy,
    until_fooled: bool = False,
) -> AttackResult:
    """Perturb images by projected gradient ascent on the sign of the gradient.

    x ← clip(x + u), u uniform in [-eps, eps] per pixel
    x ← clip(x + step · sign ∇L)         (to the radius and to [0, 1]; `steps` times)

    The start is a function of (seed, key, radius) alone: not of the batch, its size, its order or the device.

    Args:
        logits_fn: Maps images in [0, 1] to logits; must be deterministic.
        images: Clean images in [0, 1], float32 or float64, shape (batch, 3, height, width).
        labels: True classes, 0 ... classes - 1, shape (batch,).
        budget: Radius, step and number of steps, in 1/255.
        keys: One integer per image, its position in the image set, shape (batch,).
        seed: Seed of the starts, any integer; counts modulo 2^64.
        random_start: False starts at the clean image.
        loss: What is to grow.
        until_fooled: Whether an image stays where it is first misclassified, as `logits_fn` sees it; if all are, it ends.

    Returns:
        Adversarial images in [0, 1] at most `budget.eps` from `images` in every pixel, and how they fared.

    Raises:
        InputError: If images leave [0, 1], or labels or keys do not match the batch.

    Source:
        Madry et al. 2018, "Towards Deep Learning Models Resistant to Adversarial Attacks", section 2.1.
    """
    require_attackable(images, labels)
    require_keys(keys, images)
    adversarial = images
    if random_start:
        start = keyed_uniform(keys, seed, budget.eps_255, images[0].numel()).view(images.shape)
        adversarial = project(images + budget.eps * start.to(images), images, budget.eps)
    bad_gradients, calls = torch.zeros_like(labels), 0
    for _ in range(budget.steps):
        ascent = loss_gradient(logits_fn, adversarial, labels, loss)
        moved = project(adversarial + budget.step * ascent.gradient.sign(), images, budget.eps)
        adversarial = where_not_fooled(ascent, labels, moved, adversarial) if until_fooled else moved
        bad_gradients, calls = bad_gradients + ascent.bad, calls + 1
        if until_fooled and all_fooled(ascent, labels):
            break
    return score(logits_fn, images, adversarial, labels, budget, bad_gradients, calls)
