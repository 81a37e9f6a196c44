"""One training as a value: which member, who teaches it, on what, and where it is kept."""

from dataclasses import dataclass
from typing import Any

from nodestill.data import ImageSet
from nodestill.experiments.members import Member
from nodestill.experiments.processes import Watch, silent
from nodestill.experiments.store import RunFolder, Store


@dataclass(frozen=True)
class MemberTraining:
    """The training of one member."""

    member: Member
    teacher: Member | None
    store: Store
    train_set: ImageSet
    test_set: ImageSet
    monitor_images: int
    watch: Watch = silent

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
