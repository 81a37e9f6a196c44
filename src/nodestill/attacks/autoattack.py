"""AutoAttack, standard version, by its maintainers' code (the extra `attacks`): a cross-check of our own attacks.

Run last among the attacks of the protocol `sound` it meets only images that ours left robust: whatever it fools, ours missed.
"""

from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from nodestill.attacks.budget import LinfBudget, project
from nodestill.attacks.gradient import AttackResult
from nodestill.attacks.subject import LogitsFn, predictions
from nodestill.errors import InputError
from nodestill.shapes import Images, Labels, Logits

_FEWEST_CLASSES = 4  # its loss, the difference of logits ratio, needs a fourth


class _Counted(nn.Module):
    """A model as AutoAttack wants it, which counts the images that it was asked a gradient of."""

    def __init__(self, logits_fn: LogitsFn) -> None:
        super().__init__()
        self.logits_fn, self.differentiated = logits_fn, 0

    def forward(self, images: Tensor) -> Logits:
        self.differentiated += len(images) * images.requires_grad
        rows = images.flatten(1)  # on the way back this makes the gradient contiguous, which AutoAttack takes for granted
        return self.logits_fn(rows.view(images.shape))


def autoattack(logits_fn: LogitsFn, images: Images, labels: Labels, budget: LinfBudget, *, seed: int = 0) -> AttackResult:
    """Run APGD-CE, targeted APGD-DLR, targeted FAB and Square, each on what the one before left.

    Its random numbers depend on the whole batch, unlike those of our attacks; the generators of the caller are left alone.

    Args:
        logits_fn: Images in [0, 1] → logits, shape (batch, classes), four classes or more; it has to be deterministic.
        images: Clean images, float32 or float64.
        labels: True classes.
        budget: The radius counts; steps are AutoAttack's own.
        seed: Of all its random numbers.

    Returns:
        What it made. Gradients are counted as the mean over the images, rounded up; bad ones are not.

    Raises:
        InputError: If pyautoattack is not installed, or there are fewer than four classes.

    Source:
        Croce and Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
        attacks", ICML (arXiv 2003.01690).
    """
    with torch.no_grad():
        classes = logits_fn(images).shape[1]
    if classes < _FEWEST_CLASSES:
        raise InputError(f"AutoAttack needs at least {_FEWEST_CLASSES} classes, got {classes}. Leave autoattack out.")
    model = _Counted(logits_fn)
    attack = _standard(model, images, budget, seed, classes)
    with torch.random.fork_rng(), torch.enable_grad():
        made, _ = attack.run_standard_evaluation(images.contiguous(), labels, batch_size=len(images))
    made = project(made.to(images), images, budget.eps_255 / 255)
    with torch.no_grad():
        predicted = predictions(logits_fn(made))
    calls = -(-model.differentiated // len(images))
    return AttackResult(made, predicted != labels, calls, torch.zeros_like(labels), predicted)


def _standard(model: nn.Module, images: Images, budget: LinfBudget, seed: int, classes: int) -> Any:
    try:
        package = import_module("pyautoattack")
    except ImportError:
        raise InputError("autoattack needs the package pyautoattack. Install it: pip install 'nodestill[attacks]'.") from None
    attack = package.AutoAttack(model, eps=budget.eps_255 / 255, seed=seed, device=images.device, version="standard")
    for targeted in (attack.apgd_targeted, attack.fab):
        targeted.n_target_classes = min(9, classes - 1)
    return attack
