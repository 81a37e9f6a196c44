"""What is minimised: cross-entropy on labels, or Hinton's distillation from a teacher.

    (1 - kd_weight) CE(student, labels) + kd_weight T^2 KL(softmax(teacher / T) || softmax(student / T))

An objective is a closure from a batch to a `StepLoss`, so that one loop trains every kind of model.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nodestill.data import Batch
from nodestill.errors import InputError
from nodestill.shapes import Images, Labels, Logits


class StepLoss(NamedTuple):
    """The loss of one batch."""

    total: Float[Tensor, ""]  # to be differentiated
    parts: Mapping[str, Float[Tensor, ""]]  # detached, left on the device, logged by name


Objective = Callable[[Batch], StepLoss]


def supervised(model: Callable[[Images], Logits], *, label_smoothing: float = 0.0, double_softmax: bool = False) -> Objective:
    """Return the objective of training on labels alone: cross-entropy, averaged over the batch.

    Args:
        model: Maps images in [0, 1] to logits.
        label_smoothing: Share of the target spread over all classes, in [0, 1).
        double_softmax: Whether the cross-entropy is taken of probabilities, as if they were logits: a mistake, for comparison.

    Returns:
        A closure from a batch to its loss, with parts `cross_entropy` and `accuracy`.
    """

    def objective(batch: Batch) -> StepLoss:
        logits = model(batch.images).float()
        loss = labels_loss(logits, batch.labels, label_smoothing, double_softmax)
        return StepLoss(loss, {"cross_entropy": loss.detach(), "accuracy": _share(logits.argmax(1) == batch.labels)})

    return objective


def distillation_loss(
    student_logits: Logits,
    teacher_logits: Logits,
    labels: Labels,
    *,
    temperature: float,
    kd_weight: float,
    label_smoothing: float = 0.0,
    double_softmax: bool = False,
) -> StepLoss:
    """Compute (1 - w) CE(softmax(s), y) + w T^2 KL(softmax(t / T) || softmax(s / T)), averaged over the batch.

    Args:
        student_logits: s, shape (batch, classes).
        teacher_logits: t, shape (batch, classes); no gradient flows to them if they were computed without.
        labels: y, 0 ... classes - 1, shape (batch,).
        temperature: T > 0, finite. Higher is softer; T^2 keeps the size of the gradient.
        kd_weight: w in [0, 1], the weight of the *distillation* term (the paper's lambda).
        label_smoothing: Share of the target y spread over all classes, in [0, 1).
        double_softmax: Whether the cross-entropy is taken of softmax(s), as if it were logits: a mistake, for comparison.

    Returns:
        The total, and its parts `cross_entropy` and `kl` before weighting.

    Raises:
        InputError: If temperature or kd_weight are out of range, or the shapes differ.

    Source:
        Hinton, Vinyals, Dean 2015, section 2; Chu et al. 2022, Algorithm 1, with lambda = 0.9. The paper writes the KL in
        PyTorch's order of arguments; and a softmax before the cross-entropy, which would be applied twice: both read here
        as meant.
    """
    check_distillation(student_logits, teacher_logits, temperature, kd_weight)
    cross_entropy = labels_loss(student_logits, labels, label_smoothing, double_softmax)
    log_student = F.log_softmax(student_logits / temperature, dim=1)
    log_teacher = F.log_softmax(teacher_logits / temperature, dim=1)
    kl = F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    total = (1 - kd_weight) * cross_entropy + kd_weight * temperature**2 * kl
    return StepLoss(total, {"cross_entropy": cross_entropy.detach(), "kl": kl.detach()})


def labels_loss(logits: Logits, labels: Labels, label_smoothing: float, double_softmax: bool) -> Float[Tensor, ""]:
    """Return the cross-entropy of logits, or of their softmax in place of logits, averaged over the batch."""
    said = logits.softmax(1) if double_softmax else logits
    return F.cross_entropy(said, labels, label_smoothing=label_smoothing)


def check_distillation(student_logits: Tensor, teacher_logits: Tensor, temperature: float, kd_weight: float) -> None:
    """Raise `InputError` if temperature or weight are out of range, or the shapes differ."""
    if not 0 <= kd_weight <= 1:
        raise InputError(
            f"kd_weight must lie in [0, 1], got {kd_weight}. It weights the distillation term; 0.9 is the paper's."
        )
    if not 0 < temperature < float("inf"):
        raise InputError(f"temperature must be positive and finite, got {temperature}. The paper uses 3, 10 and 20.")
    if student_logits.shape != teacher_logits.shape:
        raise InputError(
            f"Student and teacher logits must have one shape, got {tuple(student_logits.shape)} and "
            f"{tuple(teacher_logits.shape)}. Train both on the same classes."
        )


def _share(hits: Tensor) -> Tensor:
    return hits.float().mean()
