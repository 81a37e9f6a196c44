"""The figure of `time_to_accuracy.py`: test accuracy against wall clock and against arithmetic, from its rows alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from equal_cost import rate
from work_precision_figure import GRID, INK, MUTED

_COLORS = {
    "distilled": "#0072b2",
    "labels alone": "#56b4e9",
    "without equations": "#cc79a7",
    "discrete twin": "#009e73",
    "discrete net": "#999999",
    "torchdiffeq": "#d55e00",
}
_AXES = (("seconds", 60.0, "minutes of wall clock, training alone"), ("flop", 1e15, "PFLOP"))


def draw(rows: Sequence[dict[str, Any]], picture: Path) -> None:
    """Draw accuracy after each epoch; each line is one training, from its first epoch to its last."""
    figure = Figure(figsize=(12.0, 5.0), layout="constrained")
    for axes, (key, unit, label) in zip(figure.subplots(1, 2, sharey=True), _AXES):
        _panel(axes, rows, key, unit)
        axes.set_xlabel(label, color=MUTED)
    figure.axes[0].set_ylabel("test accuracy, %", color=MUTED)
    handles, names = figure.axes[0].get_legend_handles_labels()
    shown = dict(zip(names, handles))
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=3, frameon=False, labelcolor=INK)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=110, metadata={"Software": None})


def _label(rows: Sequence[dict[str, Any]], contender: str) -> str:
    """Return a contender's name and how fast the machine was: minutes are to be read with it."""
    found = rate(rows, contender)
    return contender if found == "–" else f"{contender} (at {found} GFLOP/s)"


def _panel(axes: Axes, rows: Sequence[dict[str, Any]], key: str, unit: float) -> None:
    for training in dict.fromkeys((row["contender"], row["seed"], row["epochs"]) for row in rows):
        own = [row for row in rows if (row["contender"], row["seed"], row["epochs"]) == training]
        x, y = [row[key] / unit for row in own], [100 * row["accuracy"] for row in own]
        axes.plot(x, y, color=_COLORS[training[0]], label=_label(rows, training[0]), marker="o", ms=3.5, lw=1.8)
    axes.set_xlim(left=0)
    axes.grid(color=GRID, lw=0.8)
    axes.tick_params(length=0, labelcolor=MUTED)
    for side, spine in axes.spines.items():
        spine.set(visible=side == "bottom", color=MUTED)
