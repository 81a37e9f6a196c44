"""The paper's tables beside ours: rows of a grid in, tables out, each with the difference, its uncertainty, two sentences."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from nodestill.report.claims import claims_table
from nodestill.report.controlled import controls_table, factors_table
from nodestill.report.formats import NOTHING, attack_name, count, duration, joined, magnitude
from nodestill.report.said import say
from nodestill.report.select import mean_evaluations, training_seconds
from nodestill.report.solved import horizons_table, solvers_table
from nodestill.report.spread import (
    Spread,
    clean,
    interval_of,
    mean_of,
    percent_of,
    spread,
)
from nodestill.report.tables import Table
from nodestill.report.under_attack import about_spent_radii, attacked
from nodestill.reproduction.grid_records import GridRecords


class Section(NamedTuple):
    """A table with its title and what it says."""

    title: str
    says: tuple[str, ...]
    table: Table


def sections(records: GridRecords, part: str) -> list[Section]:
    """Return the tables of a part with titles and sentences, in order; of "all" those of every part."""
    chosen = [entry for entry in _SECTIONS if part in ("all", entry[0])]
    made = [Section(title, say(records, name), make(records)) for _, name, title, make in chosen]
    return [section for section in made if section.table.rows]


def table1(grid: GridRecords) -> Table:
    """Return Table 1: students trained on labels, and teachers."""
    names = sorted(grid.names("table1"), key=lambda name: (grid.first(name).t1 is None, grid.names("table1").index(name)))
    headers = ("Model", "Here", "95 % interval", "Seeds", "Paper", "Here − paper", "Parameters", "NFE", "MACs", "Training")
    return Table(headers, tuple(_row(grid, name) for name in names))


def _row(grid: GridRecords, name: str) -> tuple[str, ...]:
    cell, found = grid.first(name), spread(grid, name)
    return (
        cell.about,
        percent_of(found) if found else _why(grid, name),
        interval_of(found),
        NOTHING if found is None else str(found.seeds),
        papers(cell.paper),
        beside(grid, found, cell.paper),
        *costs(grid, name),
    )


def _why(grid: GridRecords, name: str) -> str:
    return "failed" if any(cell.failed for cell in grid.cells if cell.name == name) else NOTHING


def papers(percent: float | None) -> str:
    """Return what the paper reports, or a dash."""
    return NOTHING if percent is None else f"{percent:.2f}"


def beside(grid: GridRecords, found: Spread | None, percent: float | None) -> str:
    """Return ours minus the paper's with our interval, if the images are the paper's; the paper gives no interval."""
    if found is None or percent is None or any(field == "dataset" for field, _, _ in grid.changes):
        return NOTHING
    share = percent / 100
    return Spread(found.mean - share, found.low - share, found.high - share, None, found.of).points()


def costs(grid: GridRecords, name: str) -> tuple[str, ...]:
    """Return parameters, evaluations, multiply-accumulates and time of training, means over seeds."""
    cells = grid.named(name)
    calls = mean_of(cells, mean_evaluations)
    return (
        magnitude(mean_of(cells, lambda run: run.evaluation["cost"]["parameters"])),
        NOTHING if calls is None else f"{calls:.1f}",
        magnitude(mean_of(cells, lambda run: run.evaluation["cost"]["macs"])),
        duration(mean_of(cells, training_seconds)),
    )


def table2(grid: GridRecords) -> Table:
    """Return Table 2: teachers down, temperatures across; each cell ours, the paper's and the difference."""
    cells = [grid.first(name) for name in grid.names("table2")]
    temperatures = sorted({cell.temperature for cell in cells if cell.temperature is not None})
    depths = sorted({cell.depth for cell in cells if cell.depth is not None})
    by_place = {(cell.depth, cell.temperature): cell.name for cell in cells}
    headers = ["Teacher", "Its own"]
    for temperature in temperatures:
        headers += [f"T = {temperature:g}", "Paper", "Here − paper"]
    rows = []
    for depth in depths:
        row = [f"ResNet-{depth}", percent_of(spread(grid, f"resnet{depth}"))]
        for temperature in temperatures:
            name = by_place[depth, temperature]
            found, theirs = spread(grid, name), grid.first(name).paper
            row += [percent_of(found) if found else _why(grid, name), papers(theirs), beside(grid, found, theirs)]
        rows.append(tuple(row))
    best = f"The paper's best cell is {grid.first(grid.best).about}: Figure 1, the controls and the claims are about it"
    return Table(tuple(headers), tuple(rows), (f"{best}, whichever is best here.",))


def table3(grid: GridRecords) -> Table:
    """Return Table 3: NODE(500), trained on labels, under PGD."""
    name = next(iter(grid.names("table3")), None)
    if name is None:
        return Table((), ())
    theirs: Mapping[int, float] = {0: grid.first(name).paper or 0.0, **grid.table3}
    rows = []
    for eps, percent in theirs.items():
        found = spread(grid, name, clean if eps == 0 else attacked("pgd", eps))
        what = "clean, all images" if eps == 0 else f"PGD {eps}/255"
        cells = (percent_of(found), interval_of(found), papers(percent), beside(grid, found, percent))
        rows.append((what, *cells))
    headers = ("NODE(500), labels", "Here", "95 % interval", "Paper", "Here − paper")
    return Table(headers, tuple(rows), attack_notes(grid, [name]))


def figure1_table(grid: GridRecords) -> Table:
    """Return the numbers behind Figure 1: each model under both attacks at every radius."""
    names = [*grid.names("figure1"), *grid.names("table3")]
    places = sorted(
        {(row["attack"], row["eps_255"]) for name in names for row in _rows(grid, name) if row["eps_255"] > 0},
        key=lambda place: (place[0] != "pgd", place),
    )
    headers = ("Model", "Clean", *[f"{attack_name(attack)} {eps}" for attack, eps in places], "Failed solves")
    rows = []
    for name in names:
        cells = [percent_of(spread(grid, name, attacked(attack, eps))) for attack, eps in places]
        failed = sum(row["failed_images"] for row in _rows(grid, name))
        rows.append((grid.first(name).about, percent_of(spread(grid, name)), *cells, count(failed)))
    return Table(headers, tuple(rows), (*attack_notes(grid, names), *about_spent_radii(grid)))


def _rows(grid: GridRecords, name: str) -> list[dict]:
    return [row for run in grid.runs(name).values() for row in run.robustness]


def attack_notes(grid: GridRecords, names: Sequence[str]) -> tuple[str, ...]:
    """Return what is to be known of the attacked numbers of some cells: of how many images each is."""
    cells = {name: sorted({row["images"] for row in _rows(grid, name)}) for name in names}
    of: dict[str, list[str]] = {}
    for name, images in cells.items():
        if images:
            of.setdefault(joined([count(number) for number in images]), []).append(f"“{grid.first(name).about}”")
    if not of:
        return ()
    most, *fewer = sorted(of, key=lambda images: -len(of[images]))
    others = "".join(f"; of {joined(of[images])} the first {images}" for images in fewer)
    weak = "The paper's attacks are weak by construction: read these as upper bounds."
    return (f"Under attack: the first {most} test images{others}. {weak}",)


_SECTIONS: tuple[tuple[str, str, str, Callable[[GridRecords], Table]], ...] = (  # part, what `say` knows it by, title, maker
    ("table1", "table1", "Table 1: without distillation, and the teachers", table1),
    ("table2", "table2", "Table 2: NODE(1) by teacher and temperature", table2),
    ("table3", "table3", "Table 3: NODE(500) under PGD", table3),
    ("figure1", "figure1", "Figure 1: accuracy under attack", figure1_table),
    ("controls", "controls", "Controls", controls_table),
    ("controls", "factors", "Where the gain comes from", factors_table),
    ("controls", "solvers", "Other solvers at test time", solvers_table),
    ("controls", "horizons", "Horizons", horizons_table),
    ("claims", "claims", "The paper's claims", claims_table),
)
