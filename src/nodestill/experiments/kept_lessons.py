"""A teacher's lessons on disk, beside its weights: what it said of every view, for all students that see the same views.

    TEACHER'S FOLDER/lessons/KEY-EPOCH.safetensors     logits, (images, classes), float32: 2 MB for 50,000 images of ten classes

The key is made of all that decides the views and what is said of them, the weights included. Nothing hangs on these files: one
that is missing, damaged or cannot be written is a teacher that is asked again.
"""

from contextlib import suppress
from hashlib import sha256

from nodestill.errors import DataError
from nodestill.experiments.environment import environment
from nodestill.experiments.member_training import MemberTraining
from nodestill.experiments.plain import fingerprint
from nodestill.experiments.store import RunFolder
from nodestill.shapes import Logits
from nodestill.training.lessons import Lesson, Remembered


def kept(lesson: Lesson, teacher: RunFolder, asked: MemberTraining) -> Lesson:
    """Return the lesson of a teacher, looked up where it was asked of the same views before, by this training or another.

    Args:
        lesson: The teacher, asked at every step.
        teacher: Its folder.
        asked: The training that it is asked for, in one process.
    """
    images = asked.train_set.images
    key = fingerprint(_weights_of(teacher), *_that_decides_views(asked))

    def load(epoch: int) -> Logits | None:
        with suppress(DataError):
            found = teacher.load_tensors(_name(key, epoch)).get("logits")
            return found.to(images.device) if found is not None and len(found) == len(images) else None
        return None

    def save(epoch: int, said: Logits) -> None:
        with suppress(DataError):
            teacher.save_tensors(_name(key, epoch), {"logits": said})

    return Remembered(lesson, len(images), load, save)


def _weights_of(teacher: RunFolder) -> str:
    return sha256((teacher.path / "weights.safetensors").read_bytes()).hexdigest()


def _that_decides_views(asked: MemberTraining) -> tuple[object, ...]:
    """Return what views hang on, and, for the last bit of an answer, in which company and by what a view is asked about."""
    plan, data, device = asked.member.training, asked.member.data, asked.train_set.images.device
    views = (data.key, plan.hold_out, asked.member.seed, plan.augment, plan.batch_size, plan.precision)
    by = environment(device)
    return *views, *(by[name] for name in ("torch", "device", "threads", "tf32", "cpu_capability"))


def _name(key: str, epoch: int) -> str:
    return f"lessons/{key}-{epoch}.safetensors"
