"""The controls: each beside the cell that it is compared with; what the gain consists of."""

from nodestill.experiments.records import RunRecords
from nodestill.report.formats import NOTHING, magnitude
from nodestill.report.select import mean_evaluations
from nodestill.report.spread import (
    Spread,
    combined,
    deviation_of,
    difference,
    mean_of,
    percent_of,
    points_of,
    spread,
)
from nodestill.report.tables import Table
from nodestill.reproduction.grid_records import GridRecords

RATES = {"scale": "the tables' rates", "paper": "the paper's rates", "tuned": "tuned rates"}
_BOTH = ("scale", "tuned")


def controls_table(grid: GridRecords) -> Table:
    """Return every control with its accuracy, its paired difference to what it is compared with, and its cost.

    Controls that came to the same settings, as where tuning confirms a rate, are one line under all their names.
    """
    difference = ("Compared with", "Difference, points", "SD of pairs")
    headers = ("Control", "Rate", "Here", "Seeds", *difference, "Parameters", "MACs", "NFE")
    notes = (
        "Differences are of the same seeds: a control of one seed is compared with that seed of the other alone, not with the "
        "mean in the other's row. SD of pairs: standard deviation of the differences over seeds, points.",
        "Also: another name of the very same runs, because its settings came to be the same.",
    )
    return Table(headers, tuple(_control_row(grid, names) for names in _same_runs(grid)), notes)


def _same_runs(grid: GridRecords) -> list[list[str]]:
    """Return the names of the controls, those together that have the same run folders and are compared with the same."""
    found: dict[object, list[str]] = {}
    for name in grid.names("controls"):
        folders = [(cell.seed, cell.folder) for cell in grid.cells if cell.name == name]
        known = all(folder is not None for _, folder in folders)
        found.setdefault((tuple(folders) if known else name, grid.first(name).compared), []).append(name)
    return list(found.values())


def _control_row(grid: GridRecords, names: list[str]) -> tuple[str, ...]:
    name = names[0]
    cell, cells, found = grid.first(name), grid.named(name), spread(grid, name)
    also = "; ".join(grid.first(other).about for other in names[1:])
    against = None if cell.compared is None else difference(grid, name, cell.compared)
    calls = mean_of(cells, mean_evaluations)
    return (
        f"{cell.about} (also: {also})" if also else cell.about,
        _rate(grid, name),
        "failed" if found is None and cell.failed else percent_of(found),
        NOTHING if found is None else str(found.seeds),
        NOTHING if cell.compared is None else grid.first(cell.compared).about,
        points_of(against),
        deviation_of(against),
        magnitude(mean_of(cells, lambda run: run.evaluation["cost"]["parameters"])),
        magnitude(mean_of(cells, lambda run: run.evaluation["cost"]["macs"])),
        NOTHING if calls is None else f"{calls:.1f}",
    )


def _rate(grid: GridRecords, name: str) -> str:
    rates = {run.recipe["model"]["training"]["lr"] for run in grid.runs(name).values()}
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


def rates(grid: GridRecords) -> dict[str, str]:
    """Return the choices of rates in words; where tuning chose the rates of the tables, they are one choice."""
    arms = [f"{taught}-{optimizer}" for taught in ("kd", "labels") for optimizer in ("sgd", "adam")]
    usual, tuned = ([cell.folder for arm in arms for cell in grid.cells if cell.name == f"{arm}-{rate}"] for rate in _BOTH)
    same = "the tables' rates, which tuning confirms"
    return {**RATES, "scale": same, "tuned": same} if usual and usual == tuned and None not in usual else RATES


def factors_table(grid: GridRecords) -> Table:
    """Return what the gain consists of, at each choice of rates."""
    at = rates(grid)
    chosen = {rate: words for rate, words in at.items() if rate != "tuned" or words != at["scale"]}
    rows = [(name, words, found) for rate, words in chosen.items() for name, found in factors(grid, rate).items() if found]
    rows += [(name, RATES["scale"], found) for name, found in structure(grid).items() if found is not None]
    notes = (
        "gain: distilled by SGD less labels by Adam, the paper's comparison; optimiser and distillation are the main effects "
        "of all four arms and add up to it. Rows of other numbers of seeds do not. What a learned f brings is a part of what "
        "the ODE brings. SD of pairs: standard deviation over seeds, points.",
        "Rates are tuned on a tenth of the training images, as many for each arm, by seed 0.",
        *_about_short_training(grid),
    )
    lines = tuple((name, words, points_of(found), deviation_of(found), str(found.seeds)) for name, words, found in rows)
    return Table(("What", "At", "Points (95 % interval)", "SD of pairs", "Seeds"), lines, notes, text_columns=2)


def _about_short_training(grid: GridRecords) -> tuple[str, ...]:
    epochs = [(here, there) for field, here, there in grid.changes if field == "student.training.epochs"]
    return tuple(
        f"At the paper's rates students are undertrained: the paper trains them for {there} epochs, we for {here}."
        for here, there in epochs
    )
