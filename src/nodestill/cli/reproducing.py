"""The command `reproduce`: the plan before it starts, one view while it runs, the tables at the end."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodestill.errors import InputError, TimeUp, TrainingError
from nodestill.printing import show_reproduction
from nodestill.terminal import console, counted, show_table, time_of, watching_many

_NAMED = 12  # models of a kind that a dry run names


@dataclass(frozen=True)
class Ways:
    """How a grid is worked through.

    Args:
        engine: local or ray.
        jobs: Works at a time; if none, as many as there are cores, and one on a GPU.
        threads: Of each.
        rows: Folder of kept rows.
        dry_run: Whether the plan is all.
        max_seconds: When to stop.
        device: Name of the accelerator.
    """

    engine: str = "local"
    jobs: int | None = None
    threads: int = 1
    rows: Path = Path("results")
    dry_run: bool = False
    max_seconds: float | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.engine not in ("local", "ray"):
            raise InputError(f"--engine must be local or ray, got {self.engine!r}.")
        for name, value in (("jobs", self.jobs), ("threads", self.threads)):
            if value is not None and value < 1:
                raise InputError(f"--{name} must be at least 1, got {value}. Leave it out for the usual.")

    @property
    def at_a_time(self) -> int:
        """Works at a time."""
        return self.jobs or (1 if _is_gpu(self.device) else max(1, _cores() // self.threads))


def _cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _is_gpu(device: str) -> bool:
    import torch

    return device in ("cuda", "mps") or (device == "auto" and (torch.cuda.is_available() or torch.backends.mps.is_available()))


def reproduce(asked: Any, workspace: Any, ways: Ways) -> None:
    """Print the plan of a grid, work through it, and print and write its tables, whether the time was enough or not.

    Raises:
        TrainingError: If a model failed; the others are done.
        TimeUp: If the time is over.
    """
    from nodestill.reproduction import reproduce as grids

    _require_possible(asked, workspace)
    known = grids.known_of(asked, workspace.store, workspace.data_root)
    taken = grids.take_over_rows(asked, known, ways.rows)
    now = _show_plan(asked, known, workspace, ways, taken)
    if ways.dry_run:
        return
    failed, over = _worked(asked, workspace, known, ways) if now.left or now.waiting else ({}, None)
    grids.write_listing(asked, known, failed)
    show_reproduction(workspace.store.root / asked.name, asked.part.value)
    if over is not None:
        raise over
    _require_nothing(grids.standing(asked.cells(), known, asked.scale), failed)


def _require_possible(asked: Any, workspace: Any) -> None:
    """Refuse what cannot be meant, before anything is computed."""
    from nodestill.data import Dataset
    from nodestill.experiments.alone import require_folder

    if workspace.devices != 1:
        raise InputError(
            f"--devices must be 1 for a grid, got {workspace.devices}: its models are trained side by side. See --jobs."
        )
    if asked.images is Dataset.DIGITS and workspace.data_root is not None:
        raise InputError(
            f"--data is not for --scale {asked.scale.name.value}, whose images are the bundled digits, got "
            f"{workspace.data_root}. Leave it out, or choose another scale."
        )
    require_folder(workspace.store.root / asked.name)


def _worked(asked: Any, workspace: Any, known: Any, ways: Ways) -> tuple[dict[str, str], TimeUp | None]:
    """Work through a grid; return why what failed did, and that the time is over, if it is."""
    from nodestill.experiments.alone import alone_in
    from nodestill.reproduction import reproduce as grids

    try:
        with alone_in(workspace.store.root / asked.name), watching_many(ways.max_seconds) as show:
            return grids.reproduce(asked, workspace, known, _hands(ways, workspace, known), _watch(show)), None
    except TimeUp as over:
        return {}, over


def _hands(ways: Ways, workspace: Any, known: Any) -> Any:
    if ways.engine == "ray":
        from nodestill.reproduction.on_ray import RayHands

        return RayHands(ways.at_a_time, workspace, known, ways.threads)
    from nodestill.reproduction.engine import LocalHands

    return LocalHands(ways.at_a_time, workspace, known, ways.threads)


def _show_plan(asked: Any, known: Any, workspace: Any, ways: Ways, taken: list[str]) -> Any:
    """Print what is asked for, what is left of it and, last, how much that is; return how far the grid is."""
    from nodestill.reproduction import plan as plans

    console.print(f"{asked.part.value} of {asked.dataset.value} at scale {asked.scale.name.value}: {asked.scale.about}.")
    counts = f"{known.counts.train:,} to train on, {known.counts.test:,} to test"
    console.print(f"Images: {known.identity.provenance}, {counts}. Seeds: {asked.about_seeds}.", soft_wrap=True)
    _show_changes([list(change) for change in asked.changes()], known.store.folder(asked.name))
    plan = plans.planned(asked, known, workspace.accelerator)
    if taken:
        rows = ways.rows / asked.name
        console.print(f"Taken over from the rows in {rows}: {counted(len(taken), 'model')}.", soft_wrap=True)
    for line in plans.again(plan.standing, known):
        console.print(line, soft_wrap=True)
    if ways.dry_run:
        _show_left(plans.left_models(plan, asked, known))
    _show_counts(plan, plans.kinds_of(plan), ways)
    return plan.standing


def _show_changes(changes: list[list[str]], folder: Any) -> None:
    """Print every setting that is not the paper's; where the report of the grid lists them already, where that is."""
    report, listing = folder.path / "report.html", folder.path / "grid.json"
    if not changes:
        return
    if report.exists() and listing.exists() and folder.read(listing.name, "changes")["changes"] == changes:
        console.print(f"{counted(len(changes), 'setting')} unlike the paper's, listed in {report}.", soft_wrap=True)
    else:
        show_table(["Not the paper's", "Here", "Paper"], changes, words=3)


def _show_left(models: Sequence[Any]) -> None:
    """Print the models that are left: the first of those to train, and of those that are only to be scored."""
    rows: list[list[str]] = []
    for lacks in dict.fromkeys(model.lacks for model in models):
        some = [model for model in models if model.lacks == lacks]
        rows += [[lacks, model.about, str(model.seed), model.folder or "not known yet"] for model in some[:_NAMED]]
        rows += [[lacks, f"and {len(some) - _NAMED} more", "", ""]] if len(some) > _NAMED else []
    if rows:
        show_table(["Left to do", "Model", "Seed", "Run folder"], rows, words=4)


def _show_counts(plan: Any, kinds: Sequence[Any], ways: Ways) -> None:
    rows = [[kind.name, *map(str, kind[1:5]), time_of(kind.training), time_of(kind.scoring)] for kind in kinds]
    show_table(["Models", "All", "Done", "To train", "To score only", "Time to train", "Time to score"], rows)
    trained, scored = plan.to_train, len(plan.scored_only)
    if trained + scored == 0:
        console.print(f"Nothing is left to do, all is done: {counted(len(plan.standing.done), 'model')}.", soft_wrap=True)
        return
    both = trained and scored
    models = f"{counted(trained, 'model')} to train" if trained else f"{counted(scored, 'model')} to score only"
    aside = f" with {ways.at_a_time} at a time" if trained + scored > 1 else ""
    console.print(
        f"To do: {models}{f' and {scored} to score only' if both else ''}, about "
        f"{time_of(plan.seconds_at_once(ways.at_a_time))}{aside}, by a calibration on this machine. Times in the table are of "
        "one process of one thread. Trained equations may need more evaluations than the calibration saw.",
        soft_wrap=True,
    )


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
        f"{counted(len(failed), 'model')} failed, with {blocked} waiting for what failed; all others are done. "
        f"First: {first[0]}: {first[1]} The same command tries them again."
    )
