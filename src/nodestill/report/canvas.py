"""The look of every figure: panels, lines, colours by role, and a figure as SVG that takes part in a page.

Colours stand in the SVG as variables of the page's style sheet, so that one drawing suits light, dark and print.
"""

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nodestill.experiments.records import RunRecords
from nodestill.report.select import label

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

INK, MUTED, GRID = "#1c2430", "#66707d", "#e1e5ea"
COLORS = {
    "teacher": "#5d6978",
    "distilled": "#1d5fd1",
    "undistilled": "#cc6a12",
    "stem-only": "#23866a",
    "discrete-twin": "#a0439b",
}
PANEL = (5.4, 3.7)  # inches of 72 units

# Told apart without colour too.
_DASHES: dict[str, Any] = {"teacher": (0, (5, 2)), "stem-only": (0, (1.2, 1.4)), "discrete-twin": (0, (4, 1.5, 1, 1.5))}
_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", **{color: role for role, color in COLORS.items()}}


def color_of(run: RunRecords) -> str:
    """Return the colour of a role, the same in every figure."""
    return COLORS.get(run.role, MUTED)


def panels(
    count: int, size: tuple[float, float] = PANEL, *, stacked: bool = False
) -> tuple["matplotlib.figure.Figure", list["matplotlib.axes.Axes"]]:
    """Return an empty figure with panels side by side, each of `size` inches, or stacked within `size`."""
    from matplotlib.figure import Figure

    rows, columns = (count, 1) if stacked else (1, count)
    figure = Figure(figsize=(size[0] * columns, size[1]), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, sharex=stacked).flat)
    for panel in axes:
        _dress(panel)
    return figure, axes


def _dress(axes: "matplotlib.axes.Axes") -> None:
    axes.set_axisbelow(True)
    axes.grid(color=GRID, lw=0.8)
    axes.tick_params(length=0, labelsize=9.5, labelcolor=MUTED)
    for side, spine in axes.spines.items():
        spine.set(visible=side == "bottom", color=MUTED, linewidth=0.8)


def name(axes: "matplotlib.axes.Axes", title: str, below: str, beside: str) -> None:
    """Write what a panel shows and what its axes are."""
    axes.set_title(title, loc="left", color=INK, fontsize=11, fontweight="bold")
    axes.set_xlabel(below, color=MUTED, fontsize=9.5)
    axes.set_ylabel(beside, color=MUTED, fontsize=9.5)


def line(
    axes: "matplotlib.axes.Axes",
    run: RunRecords,
    x: Sequence[float | int],
    y: Sequence[float | int],
    *,
    strong: bool = True,
    marker: str = "",
) -> None:
    """Draw one line of a model; a weak line is thin and stands in no legend."""
    width = 2.3 if run.role == "distilled" else 1.7
    axes.plot(
        x,
        y,
        color=color_of(run),
        ls=_DASHES.get(run.role, "-"),
        lw=width if strong else 0.9,
        alpha=1.0 if strong else 0.55,
        marker=marker,
        ms=3,
        label=label(run) if strong else f"_{label(run)}",
    )


def finish(axes: Sequence["matplotlib.axes.Axes"], legend: bool) -> None:
    """Say so where a panel is empty, and write the legend into the first panel."""
    for panel in axes:
        if not (panel.lines or panel.patches):
            panel.text(0.5, 0.5, "not measured", transform=panel.transAxes, color=MUTED, ha="center", va="center")
            panel.set(xticks=[], yticks=[])
    if legend:
        axes[0].legend(frameon=False, labelcolor=INK, fontsize=9.5)


def whole_numbers(axes: "matplotlib.axes.Axes") -> None:
    """Put the ticks of the horizontal axis at whole numbers alone."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 4, 5, 10], integer=True, min_n_ticks=1))


def wide_scale(axes: "matplotlib.axes.Axes", values: Sequence[float | int]) -> None:
    """Make the vertical axis logarithmic where values above zero span more than a factor of five."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    if values and min(values) > 0 and max(values) > 5 * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_locator(NullLocator())


def svg(figure: "matplotlib.figure.Figure", prefix: str, description: str) -> str:
    """Return a figure as an inline SVG element: scalable, with selectable text in the page's font, the same bytes each time.

    Args:
        figure: What to draw.
        prefix: Goes before every identifier, so that many drawings can share a page.
        description: Read aloud in place of the drawing; plain text without quotes.
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "nodestill"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"| width="[\d.]+pt"| height="[\d.]+pt"| version="[^"]*"', "", text, count=5)
    text = text.replace("xlink:href", "href").replace("<svg", f'<svg role="img" aria-label="{description}"', 1)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    text = re.sub(r"(font-family: |font: [^;\"]*?px )[^;\"]*", r"\1var(--font)", text)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, f"var(--{variable})")
    return text
