"""One training as a value: which member, who teaches it, on what, and where it is kept."""

from dataclasses import dataclass
from typing import Any

from nodestill.data import ImageSet
from nodestill.experiments.members import Member
from nodestill.experiments.processes import Watch, silent
from nodestill.experiments.store import RunFolder, Store


@dataclass(frozen=True)
class MemberTraining:
    """The training of one member.

    Args:
        member: The model.
        teacher: Who teaches it.
        store: Where both are kept.
        train_set: What it is fitted on.
        test_set: What it is scored on.
        monitor_images: Of the latter, how many are evaluated after each epoch.
        watch: Told of every step.
        keeps_lessons: Whether what the teacher says is kept for other students that see the same views; in one process only.
    """

    member: Member
    teacher: Member | None
    store: Store
    train_set: ImageSet
    test_set: ImageSet
    monitor_images: int
    watch: Watch = silent
    keeps_lessons: bool = False

    @property
    def folder(self) -> RunFolder:
        """Where it is kept."""
        return self.store.folder(self.member.folder)

    def description(self) -> dict[str, Any]:
        """Return what goes into recipe.json: enough to build the model again without its data."""
        images = self.train_set
        return {
            **self.member.description(),
            "class_names": images.class_names,
            "image_size": tuple(images.images.shape[2:]),
            "train_images": len(images),
        }

    @property
    def task(self) -> str:
        """What the progress bar is called."""
        return f"train {self.member.role.value} {self.member.title}"
