"""Adversarial examples in the L-infinity norm, and what they leave of a model's accuracy.

Any function from images in [0, 1] to logits can be attacked. Radii are integers of 1/255.
"""

from nodestill.attacks.budget import LinfBudget, paper_budget, project
from nodestill.attacks.gradient import AttackResult, loss_gradient
from nodestill.attacks.gradient_attacks import Attack, fgsm, pgd
from nodestill.attacks.momentum import mi_fgsm, mi_fgsm_curve
from nodestill.attacks.rows import AttackName, Protocol, RobustnessRow
from nodestill.attacks.subject import FAILED, LogitsFn, Subject, predictions
from nodestill.attacks.sweep import Gallery, adversarial_examples, robustness_sweep

__all__ = [
    "FAILED",
    "Attack",
    "AttackName",
    "AttackResult",
    "Gallery",
    "LinfBudget",
    "LogitsFn",
    "Protocol",
    "RobustnessRow",
    "Subject",
    "adversarial_examples",
    "fgsm",
    "loss_gradient",
    "mi_fgsm",
    "mi_fgsm_curve",
    "paper_budget",
    "pgd",
    "predictions",
    "project",
    "robustness_sweep",
]
