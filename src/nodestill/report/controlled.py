"""The controls: each beside the cell that it is compared with; what the gain consists of; solvers; horizons."""

from collections.abc import Callable, Mapping

from nodestill.experiments.records import RunRecords
from nodestill.report.formats import NOTHING, count, duration, magnitude
from nodestill.report.select import mean_evaluations
from nodestill.report.spread import (
    Spread,
    combined,
    difference,
    mean_of,
    percent_of,
    points_of,
    spread,
)
from nodestill.report.tables import Table
from nodestill.reproduction.grid_records import GridRecords

RATES = {"scale": "the tables' rates", "paper": "the paper's rates", "tuned": "tuned rates"}


def controls_table(grid: GridRecords) -> Table:
    """Return every control with its accuracy, its paired difference to what it is compared with, and its cost."""
    headers = ("Control", "Rate", "Here", "Seeds", "Compared with", "Difference, points", "Parameters", "MACs", "NFE")
    rows = tuple(_control_row(grid, name) for name in grid.names("controls"))
    return Table(headers, rows)


def _control_row(grid: GridRecords, name: str) -> tuple[str, ...]:
    cell, cells, found = grid.first(name), grid.named(name), spread(grid, name)
    against = None if cell.compared is None else difference(grid, name, cell.compared)
    calls = mean_of(cells, mean_evaluations)
    return (
        cell.about,
        _rate(grid, name),
        "failed" if found is None and cell.failed else percent_of(found),
        NOTHING if found is None else str(found.seeds),
        NOTHING if cell.compared is None else grid.first(cell.compared).about,
        points_of(against),
        magnitude(mean_of(cells, lambda run: run.evaluation["cost"]["parameters"])),
        magnitude(mean_of(cells, lambda run: run.evaluation["cost"]["macs"])),
        NOTHING if calls is None else f"{calls:.1f}",
    )


def _rate(grid: GridRecords, name: str) -> str:
    rates = {cell.run.recipe["model"]["training"]["lr"] for cell in grid.named(name).values() if cell.run is not None}
    return ", ".join(f"{rate:g}" for rate in sorted(rates)) or NOTHING


def factors(grid: GridRecords, rate: str) -> dict[str, Spread | None]:
    """Return what the gain consists of, at one choice of rates, as differences of shares.

    gain = teacher and SGD − labels and Adam, the paper's comparison. Optimiser and teacher are the main effects of the two by
    two arms (Yates 1937: half the sum of the two differences); they add up to the gain exactly, seed by seed.
    """
    kd_sgd, kd_adam, sgd, adam = (
        f"{taught}-{optimizer}-{rate}" for taught in ("kd", "labels") for optimizer in ("sgd", "adam")
    )
    return {
        "gain": combined({kd_sgd: 1.0, adam: -1.0}, grid),
        "optimiser": combined({kd_sgd: 0.5, kd_adam: -0.5, sgd: 0.5, adam: -0.5}, grid),
        "distillation": combined({kd_sgd: 0.5, kd_adam: 0.5, sgd: -0.5, adam: -0.5}, grid),
        "distillation, SGD alone": combined({kd_sgd: 1.0, sgd: -1.0}, grid),
        "distillation, Adam alone": combined({kd_adam: 1.0, adam: -1.0}, grid),
    }


def structure(grid: GridRecords) -> dict[str, Spread | None]:
    """Return what of the best cell's accuracy its stem has above guessing, and what its equation adds."""
    of = spread(grid, "stem-only")
    chance = _chance(grid)
    above = None if of is None else Spread(of.mean - chance, of.low - chance, of.high - chance, of.deviation, of.of)
    return {
        "stem, above guessing": above,
        "ODE, above the stem alone": difference(grid, grid.best, "stem-only"),
        "learning f, above a random f": difference(grid, grid.best, "frozen-f"),
    }


def _chance(grid: GridRecords) -> float:
    runs: list[RunRecords] = [cell.run for cell in grid.cells if cell.run is not None]
    return 1 / len(runs[0].recipe["class_names"]) if runs else 0.1


def factors_table(grid: GridRecords) -> Table:
    """Return what the gain consists of, at each choice of rates."""
    rows = []
    for rate, words in RATES.items():
        rows += [(name, words, found) for name, found in factors(grid, rate).items() if found is not None]
    rows += [(name, RATES["scale"], found) for name, found in structure(grid).items() if found is not None]
    note = (
        "gain: distilled by SGD less labels by Adam, the paper's comparison; optimiser and distillation are the main effects "
        "of all four arms and add up to it. Rows of other numbers of seeds do not. What a learned f brings is a part of what "
        "the ODE brings.",
        "Rates are tuned on a tenth of the training images, as many for each arm, by seed 0.",
    )
    lines = tuple((name, words, points_of(found), str(found.seeds)) for name, words, found in rows)
    return Table(("What", "At", "Points (95 % interval)", "Seeds"), lines, note, text_columns=2)


def solvers_table(grid: GridRecords) -> Table:
    """Return accuracies of trained students under other solvers, means over seeds."""
    rows = []
    by_folder = {cell.folder: cell.name for cell in reversed(grid.cells) if cell.solvers and cell.seed == grid.cells[0].seed}
    for name in reversed(by_folder.values()):  # cells of several names that are one model are one row
        cells = grid.named(name)
        for variant in dict.fromkeys(row["name"] for cell in cells.values() for row in cell.solvers):
            found = [row for cell in cells.values() for row in cell.solvers if row["name"] == variant]
            means = {key: sum(row[key] for row in found) / len(found) for key in ("accuracy", "difference", "evaluations")}
            change = NOTHING if variant == "own" else f"{100 * means['difference']:+z.2f}"
            accuracy = f"{100 * means['accuracy']:.1f}"
            rows.append((grid.first(name).about, variant, accuracy, change, f"{means['evaluations']:.1f}", str(len(found))))
    images = sorted({row["images"] for cell in grid.cells for row in cell.solvers})
    notes = tuple(
        f"Scored are the first {count(some)} test images; the weights are the same in all rows of a seed." for some in images
    )
    headers = ("Model", "Scored under", "Accuracy, %", "Change, points", "NFE", "Seeds")
    return Table(headers, tuple(rows), notes=notes, text_columns=2)


def horizons_table(grid: GridRecords) -> Table:
    """Return what horizons cost: evaluations of f after the first and the last epoch, and seconds per epoch."""
    rows = []
    for name in horizon_names(grid):
        cells = grid.named(name)
        first, last = mean_of(cells, _measured(0)), mean_of(cells, _measured(-1))
        seconds = mean_of(cells, seconds_per_epoch)
        calls = (NOTHING if value is None else f"{value:.1f}" for value in (first, last))
        t1 = grid.first(name).t1 or 0.0
        rows.append((grid.first(name).about, f"{t1:g}", percent_of(spread(grid, name)), *calls, duration(seconds)))
    headers = ("Model", "t1", "Clean, %", "NFE, first epoch", "NFE, last epoch", "Time per epoch")
    return Table(headers, tuple(rows))


def horizon_names(grid: GridRecords) -> list[str]:
    """Return the finished students whose horizons are compared, by horizon, those with a teacher last."""
    names = [name for name in dict.fromkeys(cell.name for cell in grid.cells) if name.startswith(("node", "kd-node", "kd-end"))]
    chosen = [name for name in (*names, grid.best) if grid.named(name)]
    return sorted(chosen, key=lambda name: (name.startswith("kd"), grid.first(name).t1 or 0.0))


def seconds_per_epoch(run: RunRecords) -> float | None:
    """Return the mean seconds of an epoch."""
    return sum(row["seconds"] for row in run.training) / len(run.training) if run.training else None


def _measured(epoch: int) -> Callable[[RunRecords], float | None]:
    def read(run: RunRecords) -> float | None:
        measured: Mapping[str, float] = run.training[epoch]["measured"] if run.training else {}
        return measured.get("evaluations")

    return read
