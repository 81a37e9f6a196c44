"""Other ways to follow a teacher at clean images: its logits themselves, and the KL averaged as PyTorch's `mean` does.

Both take the arguments of `distillation_loss`, so that `taught` can be given any of the three.
"""

import torch.nn.functional as F

from nodestill.shapes import Labels, Logits
from nodestill.training.objectives import StepLoss, check_distillation, labels_loss


def mean_loss(
    student_logits: Logits,
    teacher_logits: Logits,
    labels: Labels,
    *,
    temperature: float,
    kd_weight: float,
    label_smoothing: float = 0.0,
    double_softmax: bool = False,
) -> StepLoss:
    """Compute (1 - w) CE + w T^2 KL / classes: the distillation loss with the KL averaged over classes as well as images.

    `reduction="mean"` of PyTorch's KL does this. Of ten classes, the teacher then weighs a tenth of what was asked for: a
    mistake that is easily made, and so a control. Arguments, result and errors: `distillation_loss`.
    """
    check_distillation(student_logits, teacher_logits, temperature, kd_weight)
    cross_entropy = labels_loss(student_logits, labels, label_smoothing, double_softmax)
    log_student, log_teacher = (F.log_softmax(logits / temperature, dim=1) for logits in (student_logits, teacher_logits))
    kl = F.kl_div(log_student, log_teacher, reduction="none", log_target=True).mean()  # as reduction="mean", which warns
    total = (1 - kd_weight) * cross_entropy + kd_weight * temperature**2 * kl
    return StepLoss(total, {"cross_entropy": cross_entropy.detach(), "kl": kl.detach()})


def logit_loss(
    student_logits: Logits,
    teacher_logits: Logits,
    labels: Labels,
    *,
    temperature: float,
    kd_weight: float,
    label_smoothing: float = 0.0,
    double_softmax: bool = False,
) -> StepLoss:
    """Compute (1 - w) CE(softmax(s), y) + w / 2 · mean over classes of (s - t)^2, averaged over the batch.

    For logits of zero mean it is the limit of T^2 KL as T grows; the temperature itself plays no part in it. Arguments, result
    and errors: `distillation_loss`; the part `kl` is the second term before weighting.

    Source:
        Ba and Caruana 2014, "Do Deep Nets Really Need to be Deep?", eq. 1, for the squares; Hinton, Vinyals, Dean 2015,
        section 2.1, for the limit, whose factor 1 / (2 classes) is used here.
    """
    check_distillation(student_logits, teacher_logits, temperature, kd_weight)
    cross_entropy = labels_loss(student_logits, labels, label_smoothing, double_softmax)
    squares = F.mse_loss(student_logits, teacher_logits) / 2
    total = (1 - kd_weight) * cross_entropy + kd_weight * squares
    return StepLoss(total, {"cross_entropy": cross_entropy.detach(), "kl": squares.detach()})
