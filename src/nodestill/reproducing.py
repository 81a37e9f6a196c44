"""The command `reproduce`: the plan before it starts, one view while it runs, the tables at the end."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodestill.errors import InputError, TrainingError
from nodestill.printing import show_reproduction
from nodestill.terminal import console, show_table, watching_many


@dataclass(frozen=True)
class Ways:
    """How a grid is worked through.

    Args:
        engine: local or ray.
        jobs: Works at a time; as many as there are cores if none.
        threads: Of each.
        rows: Folder of kept rows.
        dry_run: Whether the plan is all.
        max_seconds: When to stop.
    """

    engine: str = "local"
    jobs: int | None = None
    threads: int = 1
    rows: Path = Path("results")
    dry_run: bool = False
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.engine not in ("local", "ray"):
            raise InputError(f"--engine must be local or ray, got {self.engine!r}.")
        for name, value in (("jobs", self.jobs), ("threads", self.threads)):
            if value is not None and value < 1:
                raise InputError(f"--{name} must be at least 1, got {value}. Leave it out for the usual.")

    @property
    def at_a_time(self) -> int:
        """Works at a time."""
        return self.jobs or max(1, len(os.sched_getaffinity(0)) // self.threads)


def reproduce(asked: Any, workspace: Any, ways: Ways) -> None:
    """Print the plan of a grid, work through it, and print and write its tables.

    Raises:
        TrainingError: If a model failed; the others are done.
        TimeUp: If the time is over.
    """
    from nodestill.experiments import reproduce as grids

    known = grids.known_of(asked, workspace.store, workspace.data_root)
    taken = grids.take_over_rows(asked, known, ways.rows)
    now = _show_plan(asked, known, workspace, ways, taken)
    if ways.dry_run:
        return
    failed: dict[str, str] = {}
    if now.left or now.waiting:
        with watching_many(ways.max_seconds) as show:
            failed = grids.reproduce(asked, workspace, known, _hands(ways, workspace, known), _watch(show))
    grids.write_listing(asked, known, failed)
    show_reproduction(workspace.store.root / asked.name, asked.part.value)
    left = grids.standing(asked.cells(), known, asked.scale)
    _require_nothing(left, failed)


def _hands(ways: Ways, workspace: Any, known: Any) -> Any:
    if ways.engine == "ray":
        from nodestill.experiments.on_ray import RayHands

        return RayHands(ways.at_a_time, workspace, known, ways.threads)
    from nodestill.experiments.engine import LocalHands

    return LocalHands(ways.at_a_time, workspace, known, ways.threads)


def _show_plan(asked: Any, known: Any, workspace: Any, ways: Ways, taken: list[str]) -> Any:
    from nodestill.experiments import reproduce as grids

    plan = grids.planned(asked, known, workspace.accelerator)
    now = plan.standing
    console.print(f"{asked.part.value} of {asked.dataset.value} at scale {asked.scale.name.value}: {asked.scale.about}.")
    console.print(f"Images: {known.identity.provenance}. Seeds: {asked.seeds}.", soft_wrap=True)
    changes = [list(change) for change in asked.changes()]
    if changes:
        show_table(["Not the paper's", "Here", "Paper"], changes, words=3)
    kinds = [[*row[:-1], _time(row[-1])] for row in grids.kinds_of(plan)]
    show_table(["Models", "All", "Done", "Left", "Time of one process"], kinds)
    if taken:
        console.print(f"{len(taken)} models were taken over from the rows in {ways.rows / asked.name}.", soft_wrap=True)
    for line in grids.again(now, known):
        console.print(line, soft_wrap=True)
    console.print(
        f"To do: {len(now.left) + len(now.waiting)} models, about {_time(plan.total / ways.at_a_time)} with {ways.at_a_time} "
        "at a time, by a calibration on this machine. Trained equations may need more evaluations than it has seen.",
        soft_wrap=True,
    )
    return now


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"


def _watch(show: Any) -> Any:
    """Return what turns reports of workers into bars and lines."""
    tasks: dict[str, tuple[str, int, int, str]] = {}

    def on_news(news: Any, now: Any, running: set[str]) -> None:
        total, said = len(now.done) + len(now.left) + len(now.waiting), ""
        if news is not None and news.happened.value == "progress":
            tasks[news.work] = (news.task, news.done, news.total, news.note)
        elif news is not None:
            tasks.pop(news.work, None)
            why = f": {news.note}" if news.note else ""
            said = f"{len(now.done)} of {total}  {news.happened.value}  {news.work}{why}"
        show(len(now.done), total, tasks, said)

    return on_news


def _require_nothing(left: Any, failed: dict[str, str]) -> None:
    """Raise `TrainingError` if models failed, and say what could not be begun without them."""
    if not left.left and not left.waiting:
        return
    blocked = len(left.left) - len([name for name in failed if name in left.left]) + len(left.waiting)
    first = next(iter(failed.items()), ("none", "no reason was given"))
    raise TrainingError(
        f"{len(failed)} models failed and {blocked} wait for them; all others are done. First: {first[0]}: {first[1]} "
        "The same command tries them again."
    )
