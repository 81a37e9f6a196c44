"""Figures of an experiment as matplotlib figures: rows of records in, lines out. No global state: pyplot is never imported.

A figure with several panels draws them side by side; ask for one panel at a time where the page is narrow.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from nodestill.experiments.records import RunRecords
from nodestill.intervals import wilson_interval
from nodestill.report.canvas import INK, MUTED, PANEL, color_of, finish, line, name, panels, whole_numbers, wide_scale
from nodestill.report.formats import attack_name, percent, radius
from nodestill.report.select import attacks_of, chance, key_radius, label, rows_of, worst_at

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure


def accuracy_figure(runs: Sequence[RunRecords]) -> "matplotlib.figure.Figure":
    """Draw one line a model: clean accuracy with its interval, and hollow what the strongest attack leaves at one radius."""
    figure, (axes,) = panels(1, (PANEL[0], 0.8 + 0.45 * len(runs)))
    eps = key_radius(runs)
    for place, run in enumerate(runs):
        clean, left = run.evaluation["clean"], worst_at(run, eps)
        _dot(axes, place, run, (clean["accuracy"], clean["accuracy_low"], clean["accuracy_high"]), label(run))
        if left is not None:
            close = clean["accuracy"] - left["accuracy"] < 0.3
            shares = (left["accuracy"], left["wilson_low"], left["wilson_high"])
            _dot(axes, place, run, shares, f"_{label(run)}, attacked", beside=not close)
    axes.set(ylim=(len(runs) - 0.4, -0.6), yticks=range(len(runs)), yticklabels=[label(run) for run in runs])
    axes.set(xlim=(-3, 116), xticks=range(0, 101, 20))
    beside = "" if eps is None else f" — filled: clean; hollow: worst attack at {radius(eps)}"
    axes.set_xlabel(f"accuracy, %{beside}", color=MUTED, fontsize=9.5)
    axes.tick_params(axis="y", labelcolor=INK, labelsize=10.5)
    axes.grid(axis="y", visible=False)
    return figure


def _dot(
    axes: "matplotlib.axes.Axes",
    place: int,
    run: RunRecords,
    shares: tuple[float | int, ...],
    text: str,
    *,
    beside: bool = True,
) -> None:
    """Draw a share with its interval as a dot on a bar its number beside or above; hollow if legends hide its text."""
    share, low, high = (100 * value for value in shares)
    color, hollow = color_of(run), text.startswith("_")
    axes.plot([low, high], [place, place], color=color, lw=5, alpha=0.3, solid_capstyle="butt", label="_interval")
    axes.plot([share], [place], "o", ms=7, mec=color, mfc="none" if hollow else color, mew=1.6, label=text)
    shift, where = ((8, 0), ("left", "center")) if beside else ((0, 6), ("center", "bottom"))
    at = (high if beside else share, place)
    ha, va = where
    axes.annotate(percent(shares[0]), at, xytext=shift, textcoords="offset points", ha=ha, va=va, color=INK, fontsize=9.5)


def robustness_figure(
    runs: Sequence[RunRecords], attacks: Sequence[str] = (), *, legend: bool = True
) -> "matplotlib.figure.Figure":
    """Draw accuracy against radius, one panel an attack, with Wilson bands and the level of guessing.

    Args:
        runs: The models.
        attacks: Which attacks; all that were run if none is named.
        legend: Whether the first panel says which line is which model.
    """
    attacks = tuple(attacks) or attacks_of(runs)
    figure, axes = panels(max(1, len(attacks)))
    for panel, attack in zip(axes, attacks):
        _robustness_panel(panel, runs, attack)
    finish(axes, legend and bool(attacks))
    return figure


def _robustness_panel(axes: "matplotlib.axes.Axes", runs: Sequence[RunRecords], attack: str) -> None:
    for run in runs:
        points = _curve(rows_of(run, attack))
        if points:
            eps, share, low, high = zip(*points)
            line(axes, run, eps, share, marker="o")
            axes.fill_between(eps, low, high, color=color_of(run), alpha=0.16, lw=0)
    level = 100 * chance(runs[0])
    axes.axhline(level, color=MUTED, lw=1, ls=(0, (2, 3)), label="_guessing")
    axes.text(0.012, level + 1.2, "guessing", transform=axes.get_yaxis_transform(), color=MUTED, fontsize=9, va="bottom")
    axes.set_ylim(-1.5, 101.5)
    axes.margins(x=0.02)
    whole_numbers(axes)
    name(axes, attack_name(attack), "L∞ radius ε, in 1/255", "accuracy, %")


def _curve(rows: Sequence[dict[str, Any]]) -> list[tuple[float | int, ...]]:
    """Return radius, accuracy and interval in percent, beginning with the clean accuracy of the attacked images."""
    points = [(row["eps_255"], row["accuracy"], row["wilson_low"], row["wilson_high"]) for row in rows]
    if points and points[0][0] > 0:
        share, images = rows[0]["clean_accuracy"], rows[0]["images"]
        points.insert(0, (0, share, *wilson_interval(round(share * images), images)))
    return [(eps, 100 * share, 100 * low, 100 * high) for eps, share, low, high in points]


def evaluations_figure(runs: Sequence[RunRecords]) -> "matplotlib.figure.Figure":
    """Draw how many calls of f the clean test images took, one panel below another for each model that solves anything."""
    solved = [run for run in runs if (run.evaluation.get("evaluations") or {"max": 0})["max"] > 0]
    figure, axes = panels(max(1, len(solved)), (PANEL[0], max(PANEL[1], 1.85 * len(solved))), stacked=True)
    counts = sorted({int(calls) for run in solved for calls in run.evaluation["evaluations"]["histogram"]})
    gap = min((b - a for a, b in pairwise(counts)), default=1)
    for panel, run in zip(axes, solved):
        _histogram(panel, run, 0.8 * gap)
    if counts:
        axes[-1].set_xlim(counts[0] - max(gap, 2), counts[-1] + max(gap, 2))
    axes[-1].set_xticks(counts) if len(counts) <= 15 else whole_numbers(axes[-1])
    axes[-1].set_xlabel("evaluations of f per clean image", color=MUTED, fontsize=9.5)
    finish(axes, False)
    return figure


def _histogram(axes: "matplotlib.axes.Axes", run: RunRecords, width: float) -> None:
    measured = run.evaluation["evaluations"]
    calls = sorted((float(calls), images) for calls, images in measured["histogram"].items())
    places, images = [place for place, _ in calls], sum(number for _, number in calls)
    shares = [100 * number / images for _, number in calls]
    axes.bar(places, shares, width=width, color=color_of(run), alpha=0.85, label=label(run))
    axes.axvline(measured["mean"], color=INK, lw=1.2, ls=(0, (2, 2)), label="_mean")
    name(axes, f"{label(run)}, mean {measured['mean']:.1f}", "", "images, %")
    axes.grid(axis="x", visible=False)


def training_figure(
    runs: Sequence[RunRecords], quantities: Sequence[str] = ("accuracy", "loss"), *, legend: bool = True
) -> "matplotlib.figure.Figure":
    """Draw accuracy and loss by epoch: thick what was measured on test images, thin what training itself saw.

    Args:
        runs: The models.
        quantities: Which panels: accuracy, loss.
        legend: Whether the first panel says which line is which model.
    """
    figure, axes = panels(len(quantities))
    for panel, quantity in zip(axes, quantities):
        _accuracy_panel(panel, runs) if quantity == "accuracy" else _loss_panel(panel, runs)
        whole_numbers(panel)
    finish(axes, legend and any(run.training for run in runs))
    return figure


def _accuracy_panel(axes: "matplotlib.axes.Axes", runs: Sequence[RunRecords]) -> None:
    for run in runs:
        tested = {row["epoch"]: 100 * row["measured"]["accuracy"] for row in run.training if "accuracy" in row["measured"]}
        seen = {row["epoch"]: 100 * row["parts"]["accuracy"] for row in run.training if "accuracy" in row["parts"]}
        _epochs(axes, run, seen, not tested)
        _epochs(axes, run, tested, True)
    name(axes, "Accuracy", "epoch", "accuracy, %")


def _loss_panel(axes: "matplotlib.axes.Axes", runs: Sequence[RunRecords]) -> None:
    for run in runs:
        _epochs(axes, run, {row["epoch"]: row["loss"] for row in run.training}, True)
    wide_scale(axes, [row["loss"] for run in runs for row in run.training])
    name(axes, "Loss", "epoch", "loss that was minimised")


def _epochs(axes: "matplotlib.axes.Axes", run: RunRecords, values: dict[int, float | int], strong: bool) -> None:
    if values:
        line(axes, run, list(values), list(values.values()), strong=strong, marker="o" if len(values) < 3 else "")
