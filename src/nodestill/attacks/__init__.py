"""Adversarial examples in the L-infinity norm, and what they leave of a model's accuracy.

Any function from images in [0, 1] to logits can be attacked. Radii are integers of 1/255.
"""

from nodestill.attacks.apgd import apgd, apgd_targeted
from nodestill.attacks.budget import LinfBudget, paper_budget, project
from nodestill.attacks.gradient import AttackResult, loss_gradient
from nodestill.attacks.gradient_attacks import Attack, fgsm, pgd
from nodestill.attacks.hunt import Effort, Hunt
from nodestill.attacks.minimum_norm import MinimumNormResult, fast_minimum_norm
from nodestill.attacks.momentum import mi_fgsm, mi_fgsm_curve
from nodestill.attacks.rows import AttackName, Protocol, RobustnessRow
from nodestill.attacks.sound import ALL_ATTACKS, ImageFallen, SoundRow, WorstCase, hunt_down, start, worst_case_curve
from nodestill.attacks.square import square
from nodestill.attacks.subject import FAILED, LogitsFn, Subject, predictions
from nodestill.attacks.sweep import Gallery, adversarial_examples, robustness_sweep

__all__ = [
    "ALL_ATTACKS",
    "FAILED",
    "Attack",
    "AttackName",
    "AttackResult",
    "Effort",
    "Gallery",
    "Hunt",
    "ImageFallen",
    "LinfBudget",
    "LogitsFn",
    "MinimumNormResult",
    "Protocol",
    "RobustnessRow",
    "SoundRow",
    "Subject",
    "WorstCase",
    "adversarial_examples",
    "apgd",
    "apgd_targeted",
    "fast_minimum_norm",
    "fgsm",
    "hunt_down",
    "loss_gradient",
    "mi_fgsm",
    "mi_fgsm_curve",
    "paper_budget",
    "pgd",
    "predictions",
    "project",
    "robustness_sweep",
    "square",
    "start",
    "worst_case_curve",
]
