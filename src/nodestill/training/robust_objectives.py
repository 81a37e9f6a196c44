"""What is minimised for a model that is to resist small perturbations of its images.

    ARD      w T^2 KL(t(x) || s(x')) + (1 - w) CE(s(x), y)               x' raises CE(s(x'), y)
    RSLAD    w T^2 KL(t(x) || s(x')) + (1 - w) T^2 KL(t(x) || s(x))      x' raises KL(t(x) || s(x'))
    labels   CE(s(x'), y)                                                x' raises CE(s(x'), y)

t and s are the logits of teacher and student, and KL is taken between their softmaxes at temperature T. The teacher sees clean
images alone, so a teacher that is asked once will do. An objective says what x' raises; how x' is found is handed in.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nodestill.data import Batch
from nodestill.errors import InputError
from nodestill.shapes import Images, Labels, Logits
from nodestill.training.lessons import Lesson
from nodestill.training.objectives import Objective, StepLoss

Raised = Callable[[Logits], Float[Tensor, " batch"]]  # what a perturbation is to make large: one number per image
Perturb = Callable[[Batch, Raised], Images]  # perturbed images of a batch, in [0, 1], without a gradient


def ard(
    student: Callable[[Images], Logits],
    lesson: Lesson,
    perturb: Perturb,
    *,
    temperature: float,
    kd_weight: float,
    label_smoothing: float = 0.0,
) -> Objective:
    """Return the objective of adversarially robust distillation: the teacher's softened logits at x', the labels at x.

    Args:
        student: Maps images in [0, 1] to logits.
        lesson: What the teacher says of the clean batch.
        perturb: Finds x', where the student's cross-entropy with the labels is large.
        temperature: T > 0 of both softmaxes.
        kd_weight: w in [0, 1], the weight of the distillation term.
        label_smoothing: Share of the labels' target spread over all classes, in [0, 1).

    Returns:
        A closure from a batch to its loss, with parts `cross_entropy` (at x), `kl_adversarial` (at x'), `accuracy`,
        `robust_accuracy` (at x') and `agreement` (with the teacher, at x).

    Raises:
        InputError: If temperature or kd_weight are out of range.

    Source:
        Goldblum et al. 2020, "Adversarially Robust Distillation"; their alpha is w, their t is T. Differs from their
        code: KL is a sum over classes, not a mean; x' is found in evaluation mode; x and x' go through the student as one
        batch, so that BatchNorm sees both.
    """
    _check(temperature, kd_weight)

    def objective(batch: Batch) -> StepLoss:
        targets, labels = lesson(batch), batch.labels
        adversarial = perturb(batch, lambda logits: _cross_entropies(logits, labels))
        at_x, at_adversarial = _on_both(student, batch.images, adversarial)
        loss = ard_loss(
            at_x,
            at_adversarial,
            targets,
            labels,
            temperature=temperature,
            kd_weight=kd_weight,
            label_smoothing=label_smoothing,
        )
        return StepLoss(loss.total, {**loss.parts, **_hits(at_x, at_adversarial, targets, labels)})

    return objective


def rslad(
    student: Callable[[Images], Logits],
    lesson: Lesson,
    perturb: Perturb,
    *,
    temperature: float = 1.0,
    kd_weight: float = 5 / 6,
) -> Objective:
    """Return the objective of robust soft label adversarial distillation: the teacher's logits at x and at x', no labels.

    Args:
        student: Maps images in [0, 1] to logits.
        lesson: What the teacher says of the clean batch.
        perturb: Finds x', where the student is far from the teacher.
        temperature: T > 0 of all softmaxes; 1 is the authors'.
        kd_weight: w in [0, 1], the weight of the distillation at x'; the rest is that at x.

    Returns:
        A closure from a batch to its loss, with parts `kl` (at x), `kl_adversarial` (at x'), `accuracy`, `robust_accuracy`
        (at x') and `agreement` (with the teacher, at x).

    Raises:
        InputError: If temperature or kd_weight are out of range.

    Source:
        Zi et al. 2021, "Revisiting Adversarial Robustness Distillation: Robust Soft Labels Make Student Better", with
        5/6 at x'. Differs from their code: KL is a sum over classes, not a mean; x' starts anywhere in the box, not within
        normal noise of deviation 0.001; x and x' go through the student as one batch, so that BatchNorm sees both.
    """
    _check(temperature, kd_weight)

    def objective(batch: Batch) -> StepLoss:
        targets = lesson(batch)
        adversarial = perturb(batch, lambda logits: divergence(logits, targets, temperature))
        at_x, at_adversarial = _on_both(student, batch.images, adversarial)
        loss = rslad_loss(at_x, at_adversarial, targets, temperature=temperature, kd_weight=kd_weight)
        return StepLoss(loss.total, {**loss.parts, **_hits(at_x, at_adversarial, targets, batch.labels)})

    return objective


def adversarially_supervised(model: Callable[[Images], Logits], perturb: Perturb, *, label_smoothing: float = 0.0) -> Objective:
    """Return the objective of adversarial training on labels: cross-entropy at x' alone.

    Args:
        model: Maps images in [0, 1] to logits.
        perturb: Finds x', where the cross-entropy is large.
        label_smoothing: Share of the target spread over all classes, in [0, 1); what x' raises is not smoothed.

    Returns:
        A closure from a batch to its loss, with parts `cross_entropy_adversarial` and `robust_accuracy`.

    Source:
        Madry et al. 2018, "Towards Deep Learning Models Resistant to Adversarial Attacks", eq. 2.1.
    """

    def objective(batch: Batch) -> StepLoss:
        labels = batch.labels
        logits = model(perturb(batch, lambda logits: _cross_entropies(logits, labels))).float()
        loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        return StepLoss(loss, {"cross_entropy_adversarial": loss.detach(), "robust_accuracy": _share(logits, labels)})

    return objective


def ard_loss(
    student_logits: Logits,
    adversarial_logits: Logits,
    teacher_logits: Logits,
    labels: Labels,
    *,
    temperature: float,
    kd_weight: float,
    label_smoothing: float = 0.0,
) -> StepLoss:
    """Compute w T^2 KL(t(x) || s(x')) + (1 - w) CE(s(x), y), averaged over the batch; see `ard`.

    Args:
        student_logits: s(x), shape (batch, classes).
        adversarial_logits: s(x').
        teacher_logits: t(x).
        labels: y, 0 ... classes - 1, shape (batch,).
        temperature: T > 0.
        kd_weight: w in [0, 1].
        label_smoothing: Share of the target y spread over all classes, in [0, 1).

    Returns:
        The total, and its parts `cross_entropy` and `kl_adversarial` before weighting.

    Raises:
        InputError: If temperature or kd_weight are out of range.
    """
    _check(temperature, kd_weight)
    cross_entropy = F.cross_entropy(student_logits, labels, label_smoothing=label_smoothing)
    kl = divergence(adversarial_logits, teacher_logits, temperature).mean()
    total = kd_weight * temperature**2 * kl + (1 - kd_weight) * cross_entropy
    return StepLoss(total, {"cross_entropy": cross_entropy.detach(), "kl_adversarial": kl.detach()})


def rslad_loss(
    student_logits: Logits,
    adversarial_logits: Logits,
    teacher_logits: Logits,
    *,
    temperature: float = 1.0,
    kd_weight: float = 5 / 6,
) -> StepLoss:
    """Compute w T^2 KL(t(x) || s(x')) + (1 - w) T^2 KL(t(x) || s(x)), averaged over the batch; see `rslad`.

    Args:
        student_logits: s(x), shape (batch, classes).
        adversarial_logits: s(x').
        teacher_logits: t(x).
        temperature: T > 0.
        kd_weight: w in [0, 1].

    Returns:
        The total, and its parts `kl` and `kl_adversarial` before weighting.

    Raises:
        InputError: If temperature or kd_weight are out of range.
    """
    _check(temperature, kd_weight)
    kl = divergence(student_logits, teacher_logits, temperature).mean()
    kl_adversarial = divergence(adversarial_logits, teacher_logits, temperature).mean()
    total = temperature**2 * (kd_weight * kl_adversarial + (1 - kd_weight) * kl)
    return StepLoss(total, {"kl": kl.detach(), "kl_adversarial": kl_adversarial.detach()})


def divergence(student_logits: Logits, teacher_logits: Logits, temperature: float) -> Float[Tensor, " batch"]:
    """Return KL(softmax(t / T) || softmax(s / T)) of each image: a sum over classes, in float32 at least.

    Args:
        student_logits: s, shape (batch, classes).
        teacher_logits: t, shape (batch, classes).
        temperature: T > 0.
    """
    log_student = F.log_softmax(_precise(student_logits) / temperature, dim=1)
    log_teacher = F.log_softmax(_precise(teacher_logits) / temperature, dim=1)
    return F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(1)


def _cross_entropies(logits: Logits, labels: Labels) -> Float[Tensor, " batch"]:
    return F.cross_entropy(_precise(logits), labels, reduction="none")


def _precise(logits: Logits) -> Logits:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _on_both(student: Callable[[Images], Logits], images: Images, adversarial: Images) -> tuple[Logits, Logits]:
    """Return the logits at clean and at perturbed images, of one call: processes synchronise once, and one graph serves."""
    at_x, at_adversarial = student(torch.cat([images, adversarial])).float().chunk(2)
    return at_x, at_adversarial


def _hits(at_x: Logits, at_adversarial: Logits, targets: Logits, labels: Labels) -> Mapping[str, Float[Tensor, ""]]:
    return {
        "accuracy": _share(at_x, labels),
        "robust_accuracy": _share(at_adversarial, labels),
        "agreement": _share(at_x, targets.argmax(1)),
    }


def _share(logits: Logits, classes: Labels) -> Float[Tensor, ""]:
    return (logits.argmax(1) == classes).float().mean()


def _check(temperature: float, kd_weight: float) -> None:
    if not 0 <= kd_weight <= 1:
        raise InputError(
            f"kd_weight must lie in [0, 1], got {kd_weight}. It weights the teacher at perturbed images; ARD's authors have 1, "
            "RSLAD's 5/6."
        )
    if not 0 < temperature < float("inf"):
        raise InputError(f"temperature must be positive and finite, got {temperature}. ARD's authors have 30, RSLAD's 1.")
