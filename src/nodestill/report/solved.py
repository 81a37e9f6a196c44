"""What the solver and the horizon do: trained students under other solvers, and what a longer horizon costs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nodestill.experiments.records import RunRecords
from nodestill.intervals import interval_of_changes
from nodestill.report.controlled import structure
from nodestill.report.formats import NOTHING, count, duration, joined
from nodestill.report.spread import mean_of, percent_of, spread
from nodestill.report.tables import Table
from nodestill.reproduction.grid_records import GridRecords

Rows = Sequence[Mapping[str, Any]]  # scorings under one solver


def solvers_table(grid: GridRecords) -> Table:
    """Return accuracies of trained students under other solvers, means over seeds."""
    rows = []
    by_folder = {cell.folder: cell.name for cell in reversed(grid.cells) if cell.solvers and cell.seed == grid.cells[0].seed}
    for name in reversed(by_folder.values()):  # cells of several names that are one model are one row
        for variant in dict.fromkeys(row["name"] for cell in grid.named(name).values() for row in cell.solvers):
            found = scorings(grid, name, variant)
            change = NOTHING if variant == "own" else change_of(found)
            numbers = (f"{100 * _mean(found, 'accuracy'):.1f}", change, f"{_mean(found, 'evaluations'):.1f}", str(len(found)))
            rows.append((grid.first(name).about, variant, *numbers))
    headers = ("Model", "Scored under", "Accuracy, %", "Change, points (95 % interval)", "NFE", "Seeds")
    return Table(headers, tuple(rows), notes=(*_about_images(grid), *_about_leaving_out(grid)), text_columns=2)


def scorings(grid: GridRecords, name: str, variant: str) -> list[dict[str, Any]]:
    """Return the rows of a cell under one solver, of all its seeds."""
    return [row for cell in grid.named(name).values() for row in cell.solvers if row["name"] == variant]


def _mean(rows: Rows, key: str) -> float:
    return sum(row[key] for row in rows) / len(rows)


def change_of(rows: Rows) -> str:
    """Return the mean change of the accuracy in points, with the interval of the images."""
    low, high = _interval_of_change(rows)
    return f"{100 * _mean(rows, 'difference'):+z.2f} ({100 * low:+z.2f} to {100 * high:+z.2f})"


def sign_of_change(rows: Rows) -> int:
    """Return 1 or -1 if the interval of the mean change is on one side of zero, else 0."""
    low, high = _interval_of_change(rows)
    return 1 if low > 0 else -1 if high < 0 else 0


def _interval_of_change(rows: Rows) -> tuple[float, float]:
    """Return the interval of the images.

    Rows, of one model by several seeds, say how many images changed class. No more can have become right or wrong, so the
    interval is rather too wide. It is that of one seed, as all may change on the same images.
    """
    images, change = rows[0]["images"], _mean(rows, "difference")
    changed = sum(1 - row.get("agreement", 0.0) for row in rows) / len(rows)
    return interval_of_changes(change * images, changed * images, images)


def _about_images(grid: GridRecords) -> tuple[str, ...]:
    images = sorted({row["images"] for cell in grid.cells for row in cell.solvers})
    return tuple(
        f"Scored are the first {count(some)} test images; the weights are the same in all rows of a seed. Intervals of changes "
        "are of the images alone, as if each that changed class had become right or wrong: rather too wide."
        for some in images
    )


def _about_leaving_out(grid: GridRecords) -> tuple[str, ...]:
    """Return why leaving the equation out costs another number than training without it."""
    found, trained = scorings(grid, grid.best, "no equation"), structure(grid)["ODE, above the stem alone"]
    if not found or trained is None:
        return ()
    return (
        f"Leaving the equation out of the trained {grid.first(grid.best).about} moves its accuracy by "
        f"{100 * _mean(found, 'difference'):+z.1f} points, as stem and head were fitted to what it returns; training a stem "
        f"and a head without one moves it by {-100 * trained.mean:+z.1f} (“Where the gain comes from”).",
    )


def horizons_table(grid: GridRecords) -> Table:
    """Return what horizons cost: evaluations of f after the first and the last epoch, and seconds per epoch."""
    rows = []
    for name in horizon_names(grid):
        cells = grid.named(name)
        first, last = mean_of(cells, _measured(0)), mean_of(cells, _measured(-1))
        calls = (NOTHING if value is None else f"{value:.1f}" for value in (first, last))
        t1 = grid.first(name).t1 or 0.0
        rows.append((grid.first(name).about, f"{t1:g}", percent_of(spread(grid, name)), *calls, _time(grid, name)))
    headers = ("Model", "t1", "Clean, %", "NFE, first epoch", "NFE, last epoch", "Time per epoch, fastest to slowest")
    return Table(headers, tuple(rows), notes=_about_time(grid))


def _time(grid: GridRecords, name: str) -> str:
    fastest, slowest = (duration(epoch_seconds(grid, name, pick)) for pick in (min, max))
    return fastest if fastest == slowest else f"{fastest} to {slowest}"


def _about_time(grid: GridRecords) -> tuple[str, ...]:
    ways: dict[str, list[str]] = {}
    for name in horizon_names(grid):
        for way in dict.fromkeys(run.recipe["model"]["solver"]["gradient"] for run in grid.runs(name).values()):
            ways.setdefault(way, []).append(grid.first(name).about)
    modes = "; ".join(f"by `{way}` in {joined([f'“{name}”' for name in names])}" for way, names in ways.items())
    return (
        "Time per epoch over all epochs and seeds: the machine had other work at times, so compare the fastest.",
        f"Gradients go back through the solve, those of `recompute` at the cost of more time, {modes}.",
    )


def horizon_names(grid: GridRecords) -> list[str]:
    """Return the finished students whose horizons are compared, by horizon, those with a teacher last."""
    names = [name for name in dict.fromkeys(cell.name for cell in grid.cells) if name.startswith(("node", "kd-node", "kd-end"))]
    chosen = [name for name in (*names, grid.best) if grid.named(name)]
    return sorted(chosen, key=lambda name: (name.startswith("kd"), grid.first(name).t1 or 0.0))


def epoch_seconds(grid: GridRecords, name: str, pick: Callable = min) -> float | int | None:
    """Return the seconds of the fastest epoch of a cell, over all seeds, or of the slowest; none if none is known."""
    seconds = [row["seconds"] for run in grid.runs(name).values() for row in run.training]
    return pick(seconds) if seconds else None


def _measured(epoch: int) -> Callable[[RunRecords], float | None]:
    def read(run: RunRecords) -> float | None:
        measured: Mapping[str, float] = run.training[epoch]["measured"] if run.training else {}
        return measured.get("evaluations")

    return read
