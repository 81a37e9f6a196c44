"""The one loop that works through a grid: it gives what is ready to whoever is free, and hears how it went.

Who works is a `Hands`: processes of this machine (`engine`) or a Ray cluster (`on_ray`). What is ready, done or waiting is read
from the store, never remembered: a model is ready once its teacher's folder is finished, so nobody trains the same one twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, Protocol, runtime_checkable

from nodestill.reproduction.grid import Cell
from nodestill.reproduction.known import Known
from nodestill.reproduction.scales import Scale
from nodestill.reproduction.work import Work, unfinished, with_needs, works

_LOOK_EVERY = 0.5  # seconds, so that a limit on time is kept while nothing happens


class Happened(Enum):
    """What became of a work."""

    PROGRESS = "progress"
    DONE = "done"
    FAILED = "failed"


class News(NamedTuple):
    """One report of a worker."""

    work: str  # its run folder
    happened: Happened
    task: str = ""
    done: int = 0
    total: int = 0
    note: str = ""  # why it failed; or the loss


@runtime_checkable
class Hands(Protocol):
    """Who works."""

    def free(self) -> int:
        """Return how many more works can be taken now."""
        ...

    def give(self, work: Work) -> None:
        """Take a work."""
        ...

    def wait(self, seconds: float) -> list[News]:
        """Return what happened since, as soon as anything did, after so many seconds at the latest."""
        ...

    def close(self) -> None:
        """Stop all that runs; what is finished is on disk."""
        ...


@dataclass(frozen=True)
class Standing:
    """How far a grid is.

    Attributes:
        done: Works that lack nothing.
        left: Works that lack something, by folder, those that failed among them.
        waiting: Cells whose settings hang on what is not measured yet; those that never can be are left out.
    """

    done: tuple[Work, ...]
    left: dict[str, Work]
    waiting: tuple[Cell, ...]


def standing(cells: Sequence[Cell], known: Known, scale: Scale) -> Standing:
    """Return how far a grid is, from the store."""
    known = known.at_once()
    found = works(cells, known, scale.scored_images, scale.monitor_images)
    left = unfinished(found, known)
    waiting = tuple(cell for cell in with_needs(cells) if known.member(cell) is None and not known.is_hopeless(cell))
    return Standing(tuple(work for work in found if work.name not in left), left, waiting)


@dataclass
class _Loop:
    hands: Hands
    known: Known
    running: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)

    def give(self, left: dict[str, Work]) -> None:
        """Give away what is ready: its teacher is finished, nobody has it, and it has not failed."""
        for name, work in left.items():
            if self.hands.free() == 0:
                return
            if name not in self.running and name not in self.failed and self._is_ready(work):
                self.hands.give(work)
                self.running.add(name)

    def _is_ready(self, work: Work) -> bool:
        store = self.known.store
        return work.teacher is None or store.folder(work.teacher.folder).is_done or store.folder(work.name).is_done

    def hear(self, news: News) -> bool:
        """Note what happened; return whether a worker is free again."""
        if news.happened is Happened.PROGRESS:
            return False
        self.running.discard(news.work)
        if news.happened is Happened.FAILED:
            self.failed[news.work] = news.note
        return True

    def distrust(self, reports: Sequence[News], left: dict[str, Work]) -> None:
        """Count as failed what was reported as done and still lacks something: to give it again would have no end."""
        for news in reports:
            if news.happened is Happened.DONE and news.work in left:
                self.failed[news.work] = "it was reported as done, but its folder lacks rows. Remove the folder and go on."


def work_through(
    cells: Sequence[Cell],
    known: Known,
    scale: Scale,
    hands: Hands,
    on_news: Callable[[News | None, Standing, set[str]], None],
) -> dict[str, str]:
    """Do all that a grid lacks, and return why what failed did, by run folder.

    A failure stops nothing but what depends on it.

    Args:
        cells: The grid.
        known: The data and the store.
        scale: Of the grid.
        hands: Who works; closed at the end, however that comes.
        on_news: Told of every report, and of none now and then, with the standing and what runs; may raise `TimeUp`.
    """
    loop, now = _Loop(hands, known), standing(cells, known, scale)
    try:
        while True:
            loop.give(now.left)
            if not loop.running:
                return loop.failed
            reports = hands.wait(_LOOK_EVERY)
            freed = [loop.hear(news) for news in reports]
            if any(freed):
                now = standing(cells, known, scale)
                loop.distrust(reports, now.left)
            told: Sequence[News | None] = reports or [None]
            for news in told:
                on_news(news, now, loop.running)
    finally:
        hands.close()
