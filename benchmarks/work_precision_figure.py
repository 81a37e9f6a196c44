"""The figure of `work_precision.py`: error against evaluations, drawn from its rows alone."""

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

INK, MUTED, GRID = "#1c2430", "#66707d", "#e1e5ea"
COLORS = {"nodestill": "#0072b2", "torchdiffeq": "#d55e00", "torchode": "#009e73", "SciPy": "#c06fa3"}  # Okabe and Ito 2008
STYLES = {
    "dopri5": ("Dormand–Prince 5(4)", "o", "-"),
    "tsit5": ("Tsitouras 5(4)", "^", (0, (5, 1.5))),
    "even4": ("ours, even4", "P", (0, (6, 1.2, 1.5, 1.2))),
    "even3": ("ours, even3", "v", (0, (3, 1.2, 1, 1.2))),
    "bosh3": ("Bogacki–Shampine 3(2)", "s", (0, (2.5, 1.2))),
    "heun-euler": ("Heun–Euler 2(1)", "D", (0, (1, 1.2))),
}
_TITLE = "What an evaluation of f buys: lower left is better"
_DRAWN = 6


def draw(rows: Sequence[dict[str, Any]], vector: Path, picture: Path) -> None:
    """Draw the first six problems into an SVG and a picture 1,000 pixels wide at least."""
    figure = Figure(figsize=(12.5, 8.6), layout="constrained")
    problems = list(dict.fromkeys(row["problem"] for row in rows))[:_DRAWN]
    panels = list(figure.subplots(2, 3).flat)
    for axes, problem in zip(panels, problems):
        _panel(axes, problem, [row for row in rows if row["problem"] == problem and row["error"]])
    for axes in panels[len(problems) :]:
        axes.set_visible(False)
    for axes in panels[::3]:
        axes.set_ylabel("relative error of the end state", color=MUTED, fontsize=11.5)
    for axes in panels[3:]:
        axes.set_xlabel("evaluations of f per batch element", color=MUTED, fontsize=11.5)
    figure.suptitle(_TITLE, x=0.01, ha="left", color=INK, fontsize=15, fontweight="bold")
    figure.legend(handles=_keys(), loc="outside lower center", ncols=len(STYLES), frameon=False, labelcolor=INK, fontsize=11)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "nodestill"}):
        figure.savefig(vector, metadata={"Date": None})
    figure.savefig(picture, dpi=120, metadata={"Software": None})


def _panel(axes: Axes, problem: str, rows: Sequence[dict[str, Any]]) -> None:
    """Draw a line for each solver, from loose to tight, below an error of 1; ours, thin, on top of what may coincide."""
    axes.set(xscale="log", yscale="log")
    for library, color in reversed(COLORS.items()):
        on_top = library == "nodestill"
        for method, (_, marker, dashes) in STYLES.items():
            own = [r for r in rows if (r["library"], r["method"]) == (library, method) and r["error"] < 1]
            x, y = [r["evaluations"] for r in own], [r["error"] for r in own]
            size = 4.5 if on_top else 6
            axes.plot(x, y, color=color, marker=marker, ls=dashes, lw=1.6 if on_top else 2.4, ms=size, mec="white", mew=0.5)
    axes.set_title(problem, loc="left", color=INK, fontsize=12.5, fontweight="bold")
    axes.grid(color=GRID, lw=0.8)
    _ticks(axes)
    for side, spine in axes.spines.items():
        spine.set(visible=side == "bottom", color=MUTED, linewidth=0.8)


def _ticks(axes: Axes) -> None:
    """Label 1 and 3 of each decade of evaluations, and every second decade of error."""
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_major_locator(LogLocator(100))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    axes.tick_params(length=0, labelsize=11, labelcolor=MUTED)


def _keys() -> list[Line2D]:
    libraries = [Line2D([], [], color=color, lw=3, label=library) for library, color in COLORS.items()]
    methods = [Line2D([], [], color=INK, marker=m, ls=ls, ms=5, label=name) for name, m, ls in STYLES.values()]
    nothing = Line2D([], [], ls="", label=" ")
    return [key for pair in zip_longest(libraries, methods, fillvalue=nothing) for key in pair]
