"""Grids whose results are made up: a part of the paper at the smallest scale, worked through, begun, or kept."""

from pathlib import Path

import fake_runs
from nodestill.reproduction import asked_reproduction
from nodestill.reproduction.grid import Cell
from nodestill.reproduction.kept import keep
from nodestill.reproduction.known import Known
from nodestill.reproduction.reproduce import Asked, take_over_rows
from nodestill.reproduction.schedule import Standing, standing, work_through


def nothing(*_: object) -> None:
    """Hear no news."""


def asked(part: str = "controls", seeds: int = 1) -> Asked:
    return asked_reproduction(part, "cifar10", "smoke", seeds)


def named(what: Asked, name: str, seed: int = 0) -> Cell:
    return next(cell for cell in what.all_cells() if (cell.name, cell.seed) == (name, seed))


def worked(
    what: Asked, known: Known, failing: tuple[str, ...] = (), on_news=nothing
) -> tuple[dict[str, str], fake_runs.FakeHands]:
    hands = fake_runs.FakeHands(known, failing)
    return work_through(what.cells(), known, what.scale, hands, on_news), hands


def all_controls(root: Path) -> tuple[Asked, Known, fake_runs.FakeHands]:
    """All controls of two seeds, made up."""
    what, known = asked(seeds=2), fake_runs.known(root)
    failed, hands = worked(what, known)
    assert failed == {}
    return what, known, hands


def begin(root: Path) -> tuple[Asked, Known]:
    """Table 2 of which the students of ResNet-20 are not trained; all teachers are."""
    what, known = asked("table2"), fake_runs.known(root)
    for work in list(standing(what.cells(), known, what.scale).left.values()):
        if work.teacher is None or "resnet20" not in work.teacher.folder:
            fake_runs.finish(work, known)
    assert len(standing(what.cells(), known, what.scale).left) == 3
    return what, known


def kept(what: Asked, known: Known, target: Path, weights: tuple[str, ...] = ()) -> None:
    """Keep the rows of all finished works, and the weights of those whose names hold a word."""
    for work in standing(what.cells(), known, what.scale).done:
        keep(known.store.folder(work.name), target / what.name / work.name, weights=any(word in work.name for word in weights))


def fresh(what: Asked, rows: Path, root: Path) -> tuple[Known, Standing]:
    """A store of its own that took over what is kept."""
    known = fake_runs.known(root)
    take_over_rows(what, known, rows)
    return known, standing(what.cells(), known, what.scale)
