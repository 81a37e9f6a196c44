"""What decides the settings of cells: a tuned rate and the size of a twin are known once other cells are measured."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from nodestill.data import DataIdentity, Dataset, ImageCounts
from nodestill.experiments.members import Member
from nodestill.experiments.model_recipes import StudentRecipe
from nodestill.experiments.store import Store
from nodestill.reproduction.grid import Cell, Matched

_FEW_BLOCKS = 4  # of the twin that is equal in MACs by its width: sixteen convolutions at the paper's four layers


@dataclass(frozen=True)
class Known:
    """What decides the settings of cells: the data, and what is measured in a store so far.

    Args:
        dataset: Which images.
        identity: Which copy of them.
        counts: How many.
        store: Where models are kept.
        seen: Members by name and seed of their cells, of one look at the store (`at_once`); None to look anew at each call.
    """

    dataset: Dataset
    identity: DataIdentity
    counts: ImageCounts
    store: Store
    seen: dict[tuple[str, int], Member | None] | None = None

    def at_once(self) -> "Known":
        """Return the same, but every cell is looked up once only: many settings hang on the same measurements."""
        return replace(self, seen={})

    def member(self, cell: Cell) -> Member | None:
        """Return the member of a cell, or None if it waits for what another one measures."""
        if self.seen is None:
            return self.at_once().member(cell)
        if (cell.name, cell.seed) not in self.seen:
            self.seen[cell.name, cell.seed] = self._member(cell)
        return self.seen[cell.name, cell.seed]

    def _member(self, cell: Cell) -> Member | None:
        teacher = None if cell.teacher is None else self.member(cell.teacher)
        model = self._model(cell)
        if model is None or (cell.teacher is not None and teacher is None):
            return None
        taught_by = None if teacher is None else teacher.folder
        return Member(cell.role, model, self.dataset.value, self.identity, cell.seed, taught_by)

    def _model(self, cell: Cell) -> Any:
        model = self._sized(cell)
        rate = self._best_rate(cell.tuned) if cell.tuned else cell.model.training.lr
        return None if model is None or rate is None else replace(model, training=replace(model.training, lr=rate))

    def _sized(self, cell: Cell) -> Any:
        if cell.twin_of is None or cell.matched is None or not isinstance(cell.model, StudentRecipe):
            return cell.model
        measured = self._measured(cell.twin_of)
        return None if measured is None else twin(cell.model, cell.matched, measured["evaluations"]["mean"])

    def _best_rate(self, candidates: Sequence[Cell]) -> float | None:
        """Return the rate with the highest validation accuracy, the lowest of several, once all are measured or diverged."""
        left = [cell for cell in candidates if not self._diverged(cell)]
        measured = [(cell.model.training.lr, self._measured(cell)) for cell in left]
        known = [(rate, found) for rate, found in measured if found is not None]
        if len(known) < len(measured):
            return None
        return max(known, key=lambda pair: (pair[1]["clean"]["accuracy"], -pair[0]))[0] if known else None

    def is_hopeless(self, cell: Cell) -> bool:
        """Whether a cell can never be trained: all rates that were tried diverged, of it or of one that it needs."""
        needed = [one for one in (cell.teacher, cell.twin_of) if one is not None]
        return (bool(cell.tuned) and all(map(self._diverged, cell.tuned))) or any(map(self.is_hopeless, needed))

    def _diverged(self, cell: Cell) -> bool:
        member = self.member(cell)
        return member is not None and self.store.folder(member.folder).has_diverged

    def _measured(self, cell: Cell) -> dict[str, Any] | None:
        member = self.member(cell)
        if member is None or not self.store.folder(member.folder).is_measured:
            return None
        return self.store.folder(member.folder).read("evaluation.json", "clean", "evaluations")


def twin(student: StudentRecipe, matched: Matched, evaluations: float) -> StudentRecipe:
    """Return the discrete twin of a student that is equal to it in one count.

    evaluations: as many blocks, each with weights of its own, which makes the MACs equal too.
    parameters: one block, which is f itself, added once.
    macs: four blocks, so wide that they cost what all evaluations cost; stem and head become as wide as they.

    The first two have the student's own stem and head.

    Args:
        student: The Neural ODE.
        matched: What is to be equal.
        evaluations: Its calls of f per image, mean.
    """
    count = max(1, round(evaluations))
    if matched == "evaluations":
        return replace(student, twin=True, blocks=count)
    if matched == "parameters":
        return replace(student, twin=True, blocks=1)
    width = max(1, round((count / _FEW_BLOCKS) ** 0.5 * student.channels))
    return replace(student, twin=True, blocks=_FEW_BLOCKS, channels=width)
