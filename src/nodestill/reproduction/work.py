"""From cells to work: which run folders a grid needs, what each still lacks, and doing one of them.

A cell becomes a `Work` once all that decides its settings is known. Works of several cells with one run folder are one.
Everything here is told by the store alone, so that a grid goes on wherever it was stopped.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nodestill.data import Dataset, ImageSet, Split, load_image_set
from nodestill.errors import SolveError, TrainingError
from nodestill.experiments.attack_recipe import RobustnessRecipe
from nodestill.experiments.fit import train_member
from nodestill.experiments.member_training import MemberTraining
from nodestill.experiments.members import Member
from nodestill.experiments.model_recipes import StudentRecipe
from nodestill.experiments.solvers import score_solvers, scored_already
from nodestill.experiments.stages import attack_run, missing_rows
from nodestill.experiments.store import DIVERGED
from nodestill.experiments.workspace import Workspace
from nodestill.reproduction.grid import Cell
from nodestill.reproduction.known import Known
from nodestill.training import Training


@dataclass(frozen=True)
class Work:
    """One run folder that a grid needs.

    Args:
        member: The model.
        teacher: Who teaches it.
        attacks: How it is attacked.
        scored_images: Test images scored under other solvers; 0 for no scoring.
        monitor_images: Test images evaluated after each epoch.
    """

    member: Member
    teacher: Member | None
    attacks: tuple[RobustnessRecipe, ...] = ()
    scored_images: int = 0
    monitor_images: int = 0

    @property
    def name(self) -> str:
        """The run folder."""
        return self.member.folder


class Images:
    """The image sets of a grid, loaded when first asked for, and kept."""

    def __init__(self, dataset: Dataset, root: Path | None) -> None:
        self._dataset, self._root = dataset, root
        self._sets: dict[Split, ImageSet] = {}

    def __getitem__(self, split: Split) -> ImageSet:
        if split not in self._sets:
            self._sets[split] = load_image_set(self._dataset, split, self._root)
        return self._sets[split]


def splits_of(plan: Training) -> tuple[Split, Split]:
    """Return what a training is fitted on and what it is scored on."""
    return (Split.TRAIN_PART, Split.VALIDATION) if plan.hold_out else (Split.TRAIN, Split.TEST)


def works(cells: Sequence[Cell], known: Known, scored_images: int, monitor_images: int) -> list[Work]:
    """Return what the cells whose settings are known need, each run folder once, those before that others need.

    What is not in `cells` but needed by them is added: teachers, the trainings of a tuning, the Neural ODE of a twin.
    """
    found: dict[str, Work] = {}
    for cell in with_needs(cells):
        member = known.member(cell)
        if member is None:
            continue
        fresh = work_of(cell, member, known, scored_images, monitor_images)
        found[member.folder] = _merged(found[member.folder], fresh) if member.folder in found else fresh
    return list(found.values())


def work_of(cell: Cell, member: Member, known: Known, scored_images: int, monitor_images: int) -> Work:
    """Return what one cell asks for, whose settings are known."""
    teacher = None if cell.teacher is None else known.member(cell.teacher)
    scored = scored_images if cell.scored else 0
    return Work(member, teacher, (cell.attack,) if cell.attack else (), scored, monitor_images)


def with_needs(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells and all that they need, each once, what is needed first."""
    found: dict[tuple[str, int], Cell] = {}

    def add(cell: Cell) -> None:
        if (cell.name, cell.seed) not in found:
            for needed in cell.needs:
                add(needed)
            found[cell.name, cell.seed] = cell

    for cell in cells:
        add(cell)
    return list(found.values())


def _merged(one: Work, other: Work) -> Work:
    attacks = tuple(dict.fromkeys((*one.attacks, *other.attacks)))
    return replace(one, attacks=attacks, scored_images=max(one.scored_images, other.scored_images))


@dataclass(frozen=True)
class Left:
    """What a work still lacks."""

    training: bool
    attacks: bool
    scoring: bool

    @property
    def nothing(self) -> bool:
        """Whether it is done."""
        return not (self.training or self.attacks or self.scoring)


def left_of(work: Work, known: Known) -> Left:
    """Return what a work lacks, told by its folder alone; a rate that was tried and diverged lacks nothing."""
    folder = known.store.folder(work.name)
    attacks = any(missing_rows(folder, asked, known.identity) for asked in work.attacks)
    return Left(not (folder.is_measured or folder.has_diverged), attacks, _lacks_scores(work, known))


def _lacks_scores(work: Work, known: Known) -> bool:
    """Whether a work is to be scored under other solvers, on as many images as there are, and is not."""
    images = min(work.scored_images, known.counts.test)
    return images != 0 and not scored_already(known.store.folder(work.name), images)


def unfinished(found: Sequence[Work], known: Known) -> dict[str, Work]:
    """Return the works that lack something, by folder; a teacher without weights lacks them if a student lacks training."""
    lacking = {work.name: left_of(work, known) for work in found}
    by_name = {work.name: work for work in found}
    wanted = [name for name, left in lacking.items() if not left.nothing]
    for name in wanted:  # grows while it is read: a teacher that is trained again needs its own teacher
        teacher = by_name[name].teacher
        trains = lacking[name].training or not known.store.folder(name).is_done
        if trains and teacher is not None and teacher.folder not in wanted and not known.store.folder(teacher.folder).is_done:
            wanted.append(teacher.folder)
    return {work.name: work for work in found if work.name in wanted}


def carry_out(work: Work, workspace: Workspace, known: Known, images: Images) -> None:
    """Train, attack and score one model, as far as it is not done; goes on from whatever is there.

    Rows that were kept without weights are measured again if weights are needed: all numbers of a folder are of one training.

    Raises:
        NodestillError: If a training diverges, a solve has no end, or a folder cannot be written.
    """
    folder = workspace.store.folder(work.name)
    if not folder.is_done:
        folder.forget_rows()
        fitted, scored = (images[split] for split in splits_of(work.member.training))
        training = MemberTraining(
            work.member, work.teacher, workspace.store, fitted, scored, work.monitor_images, workspace.watch, keeps_lessons=True
        )
        try:
            train_member(training, workspace.accelerator, workspace.devices)
        except (TrainingError, SolveError) as error:
            if work.member.training.hold_out and isinstance(work.member.model, StudentRecipe):
                folder.write(DIVERGED, {"why": str(error), "schema": 1})
            raise
    for asked in work.attacks:
        attack_run(folder, asked, workspace, known.identity, lambda: images[Split.TEST])
    if _lacks_scores(work, known):
        data = images[Split.TEST]
        score_solvers(folder, data.first(work.scored_images), workspace)
