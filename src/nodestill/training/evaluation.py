"""How good a classifier is on clean images: accuracy with its interval, loss, calibration, agreement with a teacher."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nodestill.data import ImageSet, eval_batches
from nodestill.intervals import wilson_interval
from nodestill.shapes import Images, Logits


@dataclass(frozen=True)
class Evaluation:
    """Measurements over an image set. Shares lie in [0, 1]."""

    images: int
    accuracy: float
    accuracy_low: float  # 95 % Wilson interval
    accuracy_high: float
    loss: float  # mean cross-entropy of the images that have finite logits, in nats
    calibration_error: float  # expected calibration error, 15 equal bins of confidence
    agreement: float | None  # share of images on which the teacher predicts the same class
    failed: int  # images without finite logits; they count as wrong
    schema: int = 1


def evaluate(
    logits_fn: Callable[[Images], Logits],
    data: ImageSet,
    batch_size: int,
    *,
    teacher_fn: Callable[[Images], Logits] | None = None,
    on_batch: Callable[[int], None] = lambda done: None,
) -> Evaluation:
    """Evaluate a classifier on all images of a set.

    Args:
        logits_fn: Maps images in [0, 1] to logits; in evaluation mode.
        data: Images with labels.
        batch_size: Images per call, >= 1.
        teacher_fn: Another classifier to compare predictions with.
        on_batch: Called with the number of images done.

    Returns:
        What was measured; an image without finite logits counts as wrong.

    Raises:
        InputError: If the batch size is out of range.

    Source:
        Calibration: Guo et al. 2017, "On Calibration of Modern Neural Networks", eq. 3.
    """
    logits, same = [], []
    with torch.inference_mode():
        for batch in eval_batches(data, batch_size):
            logits.append(logits_fn(batch.images).float())
            if teacher_fn is not None:
                same.append(logits[-1].argmax(1) == teacher_fn(batch.images).argmax(1))
            on_batch(int(batch.index[-1]) + 1)
    return _summary(torch.cat(logits), data.labels, torch.cat(same) if same else None)


def _summary(logits: Tensor, labels: Tensor, same: Tensor | None) -> Evaluation:
    finite = torch.isfinite(logits).all(1)
    correct = (logits.argmax(1) == labels) & finite
    low, high = wilson_interval(int(correct.sum()), len(labels))
    return Evaluation(
        images=len(labels),
        accuracy=float(correct.double().mean()),
        accuracy_low=low,
        accuracy_high=high,
        loss=float(F.cross_entropy(logits[finite], labels[finite])) if bool(finite.any()) else float("inf"),
        calibration_error=calibration_error(logits[finite], labels[finite]),
        agreement=None if same is None else float((same & finite).double().mean()),
        failed=int((~finite).sum()),
    )


def calibration_error(logits: Logits, labels: Tensor, bins: int = 15) -> float:
    """Return the mean gap between confidence and accuracy over equal bins of confidence, weighted by their images.

    Args:
        logits: Finite floats, shape (batch, classes).
        labels: True classes, shape (batch,).
        bins: Number of bins of [0, 1], >= 1.

    Returns:
        A share in [0, 1]; 0 for no images.

    Source:
        Guo et al. 2017, "On Calibration of Modern Neural Networks", eq. 3.
    """
    confidence, predicted = logits.double().softmax(1).max(1)
    hits = (predicted == labels).double()
    which = (confidence * bins).long().clamp_max(bins - 1)
    gaps = torch.zeros(bins, dtype=torch.float64, device=logits.device).index_add_(0, which, confidence - hits)
    return float(gaps.abs().sum() / max(len(labels), 1))
