"""The plan of a grid: which models are to be trained, which only to be scored, and how long that will take."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from nodestill.experiments.fit import device_of
from nodestill.experiments.recipe import Role
from nodestill.reproduction.estimate import Seconds, estimate
from nodestill.reproduction.grid import Cell
from nodestill.reproduction.known import Known
from nodestill.reproduction.reproduce import Asked
from nodestill.reproduction.schedule import Standing, standing
from nodestill.reproduction.work import Work, left_of, with_needs, work_of

Key = tuple[str, int]  # name and seed of a cell


@dataclass(frozen=True)
class Plan:
    """What is to be done, and how long it will take.

    Attributes:
        standing: How far the grid is.
        seconds: What one process will need for each model that is left and whose settings are known, by run folder.
        later: What it will need for all others, by the settings that they have before a rate or a size is chosen.
        longest: What the longest chain of models will need that wait for each other, as students do for their teacher.
        scored_only: The run folders that are left of models that are trained.
    """

    standing: Standing
    seconds: Mapping[str, Seconds]
    later: Mapping[Key, Seconds]
    longest: float
    scored_only: frozenset[str]

    @property
    def to_train(self) -> int:
        """How many models are to be trained."""
        return len(self.standing.left) + len(self.standing.waiting) - len(self.scored_only)

    @property
    def total(self) -> float:
        """The seconds of one process."""
        return _sum(each.both for each in (*self.seconds.values(), *self.later.values()))

    def seconds_at_once(self, models: int) -> float:
        """Return the seconds with so many models at a time: no model is shared out, and none overtakes its teacher."""
        return max(self.total / models, self.longest)


def planned(asked: Asked, known: Known, accelerator: str) -> Plan:
    """Return the plan of what is asked for, after a calibration of seconds if anything is to be done."""
    cells = asked.cells()
    now = standing(cells, known, asked.scale)
    if not now.left and not now.waiting:
        return Plan(now, {}, {}, 0.0, frozenset())
    unsettled = _as_works(now.waiting, asked, known)
    seconds, of_later = estimate(now.done, list(now.left.values()), list(unsettled.values()), known, device_of(accelerator))
    later = dict(zip(unsettled, of_later))
    scored_only = frozenset(name for name in now.left if known.store.folder(name).is_done)
    return Plan(now, seconds, later, _longest_chain(cells, known, seconds, later), scored_only)


def _as_works(waiting: Sequence[Cell], asked: Asked, known: Known) -> dict[Key, Work]:
    """Return what cells would ask for without what their settings wait for."""
    images = asked.scale.scored_images, asked.scale.monitor_images
    settled = {(cell.name, cell.seed): replace(cell, tuned=(), twin_of=None) for cell in waiting}
    pairs = {key: (cell, known.member(cell)) for key, cell in settled.items()}
    return {key: work_of(cell, member, known, *images) for key, (cell, member) in pairs.items() if member is not None}


def _longest_chain(cells: Sequence[Cell], known: Known, seconds: Mapping[str, Seconds], later: Mapping[Key, Seconds]) -> float:
    """Return the seconds until the last model is done if all that are ready are worked on at once."""
    trained: dict[Key, float] = {}
    longest, by_now = 0.0, known.at_once()
    for cell in with_needs(cells):  # what is needed comes first
        key, member = (cell.name, cell.seed), by_now.member(cell)
        own = later.get(key) if member is None else seconds.get(member.folder)
        ready = max((trained[needed.name, needed.seed] for needed in cell.needs), default=0.0)
        trained[key] = ready + own.training if own and own.training else 0.0  # what is trained waits for nobody
        longest = max(longest, trained[key] + (own.scoring if own else 0.0))
    return longest


class Kind(NamedTuple):
    """How many models of a kind there are and what is left of them, with the seconds of one process."""

    name: str
    models: int
    done: int
    to_train: int
    scored_only: int
    training: float
    scoring: float


def kinds_of(plan: Plan) -> list[Kind]:
    """Return teachers, students, trainings that choose a rate, and those whose settings are not known yet."""
    now, kinds = plan.standing, list[Kind]()
    both = [*now.done, *now.left.values()]
    for kind in dict.fromkeys(_kind(work) for work in both):
        some = [work.name for work in both if _kind(work) == kind]
        left = [name for name in some if name in now.left]
        scored = len(plan.scored_only.intersection(left))
        counts = len(some), len(some) - len(left), len(left) - scored, scored
        kinds.append(Kind(kind, *counts, *_sums(plan.seconds[name] for name in left)))
    waiting = len(now.waiting)
    return [*kinds, Kind("settings not known yet", waiting, 0, waiting, 0, *_sums(plan.later.values()))] if waiting else kinds


def _kind(work: Work) -> str:
    if work.member.training.hold_out:
        return "choosing rates"
    return "teachers" if work.member.role is Role.TEACHER else "students"


def _sums(some: Iterable[Seconds]) -> tuple[float, float]:
    some = list(some)
    return _sum(each.training for each in some), _sum(each.scoring for each in some)


def _sum(some: Iterable[float]) -> float:
    return sum(some, 0.0)


class LeftModel(NamedTuple):
    """A model that is left.

    Attributes:
        about: What it is called in print.
        seed: Of its training.
        lacks: What is to be done.
        folder: Its run folder; None if its settings are not known yet.
    """

    about: str
    seed: int
    lacks: str
    folder: str | None


def left_models(plan: Plan, asked: Asked, known: Known) -> list[LeftModel]:
    """Return every model that is left, those that are to be trained first."""
    now, by_now = plan.standing, known.at_once()
    found: dict[str, LeftModel] = {}
    for cell in with_needs(asked.cells()):
        member = by_now.member(cell)
        if member is not None and member.folder in now.left:
            name = member.folder
            found.setdefault(name, LeftModel(cell.about, cell.seed, _lacks(now.left[name], plan, by_now), name))
    waiting = [LeftModel(cell.about, cell.seed, "training", None) for cell in now.waiting]
    trained = [each for name, each in found.items() if name not in plan.scored_only]
    return [*trained, *waiting, *(each for name, each in found.items() if name in plan.scored_only)]


def _lacks(work: Work, plan: Plan, known: Known) -> str:
    if work.name not in plan.scored_only:
        return "training"
    left = left_of(work, known)
    words = {"attacks": left.attacks, "scores under other solvers": left.scoring}
    return ", ".join(word for word, is_left in words.items() if is_left)


def again(now: Standing, known: Known) -> list[str]:
    """Return a sentence for each model that is trained again although its rows are there: its weights were not kept."""
    folders = {name: known.store.folder(name) for name in now.left}
    return [
        f"{name} is trained again: its rows were kept, its weights were not, and they are needed."
        for name, folder in folders.items()
        if folder.is_measured and not folder.is_done
    ]
