"""Figures of a grid: temperature by teacher as a heat map, accuracy under attack, seconds per epoch against the horizon."""

from typing import TYPE_CHECKING, Any

from nodestill.report.canvas import COLORS, INK, MUTED, PANEL, finish, name, panels, whole_numbers
from nodestill.report.formats import attack_name
from nodestill.report.select import mean_evaluations
from nodestill.report.solved import epoch_seconds, horizon_names
from nodestill.report.spread import mean_of, spread
from nodestill.report.under_attack import attacked
from nodestill.reproduction.grid_records import GridRecords

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

_DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1.2, 1.4)), (0, (6, 1.5, 1, 1.5)))


def heat_map(grid: GridRecords) -> "matplotlib.figure.Figure":
    """Draw accuracy by temperature and teacher, one panel ours and one the paper's, each on its own scale of colours."""
    figure, axes = panels(2)
    cells = [grid.first(cell) for cell in grid.names("table2")]
    depths = sorted({cell.depth for cell in cells if cell.depth is not None})
    hot = sorted({cell.temperature for cell in cells if cell.temperature is not None})
    ours = {(cell.depth, cell.temperature): spread(grid, cell.name) for cell in cells}
    here = {place: 100 * found.mean for place, found in ours.items() if found is not None}
    theirs = {(cell.depth, cell.temperature): cell.paper for cell in cells if cell.paper is not None}
    for panel, values, title in ((axes[0], here, "Here"), (axes[1], theirs, "The paper")):
        table = [[values.get((depth, T), float("nan")) for depth in depths] for T in hot]
        _squares(panel, table)
        panel.set(xticks=range(len(depths)), xticklabels=depths, yticks=range(len(hot)), yticklabels=[f"{T:g}" for T in hot])
        name(panel, f"{title}, accuracy, %", "teacher's depth", "temperature")
    return figure


def _squares(panel: "matplotlib.axes.Axes", table: list[list[float]]) -> None:
    panel.imshow(table, cmap="Blues", aspect="auto", alpha=0.8)
    panel.grid(visible=False)
    known = [value for row in table for value in row if value == value]
    for y, row in enumerate(table):
        for x, value in enumerate(row):
            dark = value == value and len(known) > 1 and value > (min(known) + max(known)) / 2
            text = "–" if value != value else f"{value:.1f}"
            panel.text(x, y, text, ha="center", va="center", color="#ffffff" if dark else INK, fontsize=9.5)


def attack_figure(grid: GridRecords) -> "matplotlib.figure.Figure":
    """Draw accuracy against radius as the paper's Figure 1 does, one panel an attack, means over seeds with their intervals."""
    names = [cell for cell in (*grid.names("figure1"), *grid.names("table3")) if grid.named(cell)]
    attacks = sorted({row["attack"] for cell in names for run in grid.runs(cell).values() for row in run.robustness})
    figure, axes = panels(max(1, len(attacks)))
    for panel, attack in zip(axes, reversed(attacks)):
        for place, cell in enumerate(names):
            _curve(panel, grid, cell, attack, _DASHES[place % len(_DASHES)])
        name(panel, attack_name(attack), "L∞ radius ε, in 1/255", "accuracy, %")
        whole_numbers(panel)
        panel.set_ylim(-1.5, 101.5)
    finish(axes, bool(attacks))
    return figure


def _curve(panel: "matplotlib.axes.Axes", grid: GridRecords, cell: str, attack: str, dashes: Any) -> None:
    runs = list(grid.runs(cell).values())
    radii = sorted({row["eps_255"] for run in runs for row in run.robustness if row["attack"] == attack})
    found = [(eps, spread(grid, cell, attacked(attack, eps))) for eps in radii]
    points = [(eps, 100 * at.mean, 100 * max(0.0, at.low), 100 * min(1.0, at.high)) for eps, at in found if at is not None]
    if points:
        eps, mean, low, high = zip(*points)
        color = COLORS.get(runs[0].role, MUTED)
        panel.plot(eps, mean, color=color, ls=dashes, lw=1.8, marker="o", ms=3, label=grid.first(cell).about)
        panel.fill_between(eps, low, high, color=color, alpha=0.12, lw=0)


def horizon_figure(grid: GridRecords) -> "matplotlib.figure.Figure":
    """Draw seconds of the fastest epoch and evaluations of f after the last epoch against the horizon, both logarithmic."""
    figure, axes = panels(2, (PANEL[0], PANEL[1]))
    for taught, color in ((False, COLORS["undistilled"]), (True, COLORS["distilled"])):
        names = [cell for cell in horizon_names(grid) if cell.startswith("kd") == taught]
        label = "distilled" if taught else "labels"
        calls = {cell: mean_of(grid.named(cell), mean_evaluations) for cell in names}
        for panel, values in ((axes[0], {cell: epoch_seconds(grid, cell) for cell in names}), (axes[1], calls)):
            points = [(grid.first(cell).t1, value) for cell, value in values.items()]
            known = sorted((t1, value) for t1, value in points if t1 and value)
            if known:
                panel.plot(*zip(*known), color=color, marker="o", ms=4, lw=1.8, label=label)
    for panel, title, beside in ((axes[0], "Time", "seconds, fastest epoch"), (axes[1], "Evaluations", "calls of f per image")):
        if panel.lines:
            panel.set(xscale="log", yscale="log")
        name(panel, title, "horizon t1", beside)
    finish(axes, bool(axes[0].lines))
    return figure
