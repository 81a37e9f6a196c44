"""What a teacher says of a batch: asked on the view that the student sees, or once for each image and looked up from then on.

An objective is handed a `Lesson`, a function from a batch to the teacher's logits, and does not know which of them it is.
"""

from collections.abc import Callable

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from nodestill.data import Batch, ImageSet, eval_batches
from nodestill.shapes import Images, Logits
from nodestill.training.objectives import Objective, StepLoss, distillation_loss

Lesson = Callable[[Batch], Logits]


def live(teacher: nn.Module) -> Lesson:
    """Return the lesson of a teacher that is asked at every step, on the augmented view that the student sees.

    Args:
        teacher: Maps images in [0, 1] to logits. Put into evaluation mode and frozen here, in place.
    """
    teacher = teacher.eval().requires_grad_(False)

    def lesson(batch: Batch) -> Logits:
        with torch.no_grad():
            return teacher(batch.images).float()

    return lesson


def once(teacher: nn.Module, data: ImageSet, *, mirrored: bool = False, batch_size: int = 500) -> Lesson:
    """Return the lesson of a teacher that is asked once for each image, here and now, and never again.

    It says of an image what it thinks of the image as stored: a student that sees a crop, a mirror image or a cut-out is
    taught the same as of the whole. That costs one pass over the images in place of one per epoch, and less is learned from
    it where a view shows something else than its image. The logits are a function of teacher and images alone, so that a
    training that goes on after a stop makes the same ones again.

    They are kept on the device of the images: four bytes per image and class, 2 MB for 50,000 images of ten classes.

    Args:
        teacher: Maps images in [0, 1] to logits. Put into evaluation mode and frozen here, in place.
        data: The images that batches are drawn from; `Batch.index` counts in it.
        mirrored: Whether the logits are the mean of those of the image and of its mirror image, for a training that flips.
        batch_size: Images per call of the teacher, >= 1.

    Raises:
        InputError: If `batch_size` is out of range.

    Source:
        Chu et al. 2022, Algorithm 1, read literally: the teacher's targets are computed before the training.
    """
    teacher = teacher.eval().requires_grad_(False)
    with torch.no_grad():
        said = torch.cat([_logits(teacher, batch.images, mirrored) for batch in eval_batches(data, batch_size)])
    return lambda batch: said[batch.index]


class Remembered:
    """A lesson that is asked once for every view, by whichever student sees it first: what was said of an epoch is kept.

    A view is a function of (seed, image, epoch) alone, so what a teacher said of it holds for every student of the same seed
    and augmentation. An epoch that is not kept is asked as ever, and kept as soon as all its images were.

    Args:
        lesson: What is asked, as `live`.
        images: How many there are; `Batch.index` counts below it, and every image comes once in an epoch.
        load: Returns what is kept of an epoch (`Batch.view`), on the device of the images, or None.
        save: Keeps what was said of an epoch, in the order of the images.
    """

    def __init__(
        self, lesson: Lesson, images: int, load: Callable[[int], Logits | None], save: Callable[[int, Logits], None]
    ) -> None:
        self._lesson, self._images, self._load, self._save = lesson, images, load, save
        self._epoch, self._unheard = -1, images
        self._kept: Logits | None = None
        self._heard: Logits | None = None

    def __call__(self, batch: Batch) -> Logits:
        """Return what the teacher says, or said, of a batch."""
        epoch = int(batch.view[0])
        if epoch != self._epoch:
            self._epoch, self._kept, self._heard, self._unheard = epoch, self._load(epoch), None, self._images
        if self._kept is not None:
            return self._kept[batch.index]
        logits = self._lesson(batch)
        self._hear(batch.index, logits)
        return logits

    def _hear(self, index: Int64[Tensor, " batch"], logits: Logits) -> None:
        if self._heard is None:
            self._heard = logits.new_full((self._images, logits.shape[1]), torch.nan)
        self._heard[index] = logits
        self._unheard -= len(index)
        if self._unheard == 0 and not self._heard.isnan().any():
            self._save(self._epoch, self._heard)


def _logits(teacher: nn.Module, images: Images, mirrored: bool) -> Logits:
    logits = teacher(images).float()
    return (logits + teacher(images.flip(3)).float()) / 2 if mirrored else logits


def taught(
    student: Callable[[Images], Logits],
    lesson: Lesson,
    *,
    temperature: float,
    kd_weight: float,
    label_smoothing: float = 0.0,
    double_softmax: bool = False,
    loss: Callable[..., StepLoss] = distillation_loss,
) -> Objective:
    """Return the objective of distillation by a lesson.

    Args:
        student: Maps images in [0, 1] to logits.
        lesson: What the teacher says of a batch.
        temperature: T > 0 of both softmaxes.
        kd_weight: Weight of the distillation term, in [0, 1].
        label_smoothing: Share of the labels' target spread over all classes, in [0, 1).
        double_softmax: Whether the labels' cross-entropy is taken of probabilities: a mistake, for comparison.
        loss: What is computed: `distillation_loss`, or one of `training.matching` with its arguments.

    Returns:
        A closure from a batch to its loss, with parts `cross_entropy`, `kl` (what the loss makes of the teacher), `accuracy`
        and `agreement`.

    Source:
        Hinton, Vinyals, Dean 2015, section 2; see `distillation_loss`.
    """

    def objective(batch: Batch) -> StepLoss:
        targets, labels = lesson(batch), batch.labels
        logits = student(batch.images).float()
        found = loss(
            logits,
            targets,
            labels,
            temperature=temperature,
            kd_weight=kd_weight,
            label_smoothing=label_smoothing,
            double_softmax=double_softmax,
        )
        predicted = logits.argmax(1)
        accuracy, agreement = ((predicted == which).float().mean() for which in (labels, targets.argmax(1)))
        return StepLoss(found.total, {**found.parts, "accuracy": accuracy, "agreement": agreement})

    return objective


def distilled(
    student: Callable[[Images], Logits],
    teacher: nn.Module,
    *,
    temperature: float,
    kd_weight: float,
    label_smoothing: float = 0.0,
) -> Objective:
    """Return the objective of distillation from a teacher that sees the student's augmented view: `taught` by `live`.

    Args:
        student: Maps images in [0, 1] to logits.
        teacher: Likewise, with the same classes. Put into evaluation mode and frozen here, in place.
        temperature: T > 0 of both softmaxes.
        kd_weight: Weight of the distillation term, in [0, 1].
        label_smoothing: Share of the labels' target spread over all classes, in [0, 1).

    Source:
        Chu et al. 2022, Algorithm 1. Differs: the teacher's targets follow the augmentation instead of being computed once.
    """
    return taught(student, live(teacher), temperature=temperature, kd_weight=kd_weight, label_smoothing=label_smoothing)
