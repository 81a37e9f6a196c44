"""Figures: the lines are the rows, named as the models are; nothing measured still gives a figure."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from nodestill.intervals import wilson_interval
from nodestill.report import accuracy_figure, evaluations_figure, robustness_figure, training_figure
from nodestill.report.canvas import COLORS, svg
from report.made_records import bare, made_experiment, made_run

LABELS = ["Teacher ResNet-20", "Distilled NODE(1)", "Undistilled NODE(1)", "Stem only"]


def shown(axes):
    """Return the lines that a legend would name."""
    return {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}


def hidden(axes, text):
    return next(line for line in axes.lines if line.get_label() == text)


def test_robustness_lines_are_the_rows():
    runs = made_experiment().runs
    figure = robustness_figure(runs)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["PGD", "MI-FGSM"]
    for axes, attack in zip(figure.axes, ("pgd", "mi-fgsm")):
        assert list(shown(axes)) == LABELS
        for run, line in zip(runs, shown(axes).values()):
            rows = [row for row in run.robustness if row["attack"] == attack]
            np.testing.assert_allclose(line.get_xdata(), [row["eps_255"] for row in rows])
            np.testing.assert_allclose(line.get_ydata(), [100 * row["accuracy"] for row in rows])
            assert line.get_color() == COLORS[run.role]


def test_robustness_bands_are_the_wilson_intervals():
    run = made_run("teacher")
    (band,) = robustness_figure([run], ["pgd"]).axes[0].collections
    drawn = band.get_paths()[0].vertices
    for row in run.robustness[:21]:
        at = drawn[drawn[:, 0] == row["eps_255"], 1]
        np.testing.assert_allclose([at.min(), at.max()], [100 * row["wilson_low"], 100 * row["wilson_high"]])


def test_guessing_is_drawn_at_one_over_classes():
    axes = robustness_figure([made_run("teacher")]).axes[0]
    np.testing.assert_allclose(hidden(axes, "_guessing").get_ydata(), 10.0)


def test_curve_without_a_row_at_zero_begins_with_the_clean_accuracy():
    run = made_run("teacher")
    axes = robustness_figure([replace(run, robustness=run.robustness[1:21])]).axes[0]
    (line,) = shown(axes).values()
    assert (line.get_xdata()[0], line.get_ydata()[0]) == (0, pytest.approx(91.7))
    drawn = axes.collections[0].get_paths()[0].vertices
    low, high = wilson_interval(917, 1000)
    np.testing.assert_allclose(sorted(set(drawn[drawn[:, 0] == 0, 1])), [100 * low, 100 * high])


def test_accuracy_dots_are_clean_and_worst_attacked():
    runs = made_experiment().runs
    axes = accuracy_figure(runs).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == LABELS
    for place, run in enumerate(runs):
        dot, hollow = shown(axes)[LABELS[place]], hidden(axes, f"_{LABELS[place]}, attacked")
        assert (list(dot.get_xdata()), list(dot.get_ydata())) == ([100 * run.evaluation["clean"]["accuracy"]], [place])
        left = min(row["accuracy"] for row in run.robustness if row["eps_255"] == 8)
        assert list(hollow.get_xdata()) == [100 * left]
        assert hollow.get_markerfacecolor() == "none"
    assert "8/255" in axes.get_xlabel()
    assert "hollow" not in accuracy_figure([bare(run) for run in runs]).axes[0].get_xlabel()


def test_histogram_bars_are_the_shares_of_images():
    runs = made_experiment().runs
    figure = evaluations_figure(runs)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "Distilled NODE(1), mean 23.8",
        "Undistilled NODE(1), mean 19.2",
    ]
    bars = figure.axes[0].patches
    assert [bar.get_x() + bar.get_width() / 2 for bar in bars] == pytest.approx([14, 20, 26, 32, 38])
    assert [bar.get_height() for bar in bars] == pytest.approx([4, 41, 43, 11, 1])
    np.testing.assert_allclose(hidden(figure.axes[0], "_mean").get_xdata(), runs[1].evaluation["evaluations"]["mean"])


def test_many_counts_get_fewer_ticks():
    run = made_run("distilled")
    counts = {"mean": 40.0, "min": 0, "max": 99, "histogram": {str(calls): 1 for calls in range(100)}}
    axes = evaluations_figure([replace(run, evaluation={**run.evaluation, "evaluations": counts})]).axes[0]
    assert len(axes.get_xticks()) < 15


def test_training_lines_are_the_epochs():
    runs = made_experiment().runs
    accuracy, loss = training_figure(runs).axes
    assert list(shown(accuracy)) == list(shown(loss)) == LABELS
    for run in runs:
        name = LABELS[runs.index(run)]
        np.testing.assert_allclose(
            shown(accuracy)[name].get_ydata(), [100 * row["measured"]["accuracy"] for row in run.training]
        )
        seen = hidden(accuracy, f"_{name}")
        np.testing.assert_allclose(seen.get_ydata(), [100 * row["parts"]["accuracy"] for row in run.training])
        np.testing.assert_allclose(shown(loss)[name].get_ydata(), [row["loss"] for row in run.training])
        assert list(seen.get_xdata()) == list(range(1, 31))
    assert loss.get_yscale() == "log"


def test_without_test_measurements_the_training_accuracy_is_the_line():
    run = made_run("teacher")
    axes = training_figure([replace(run, training=[{**row, "measured": {}} for row in run.training])], ["accuracy"]).axes[0]
    assert list(shown(axes)) == ["Teacher ResNet-20"]
    assert axes.get_yscale() == "linear"


@pytest.mark.parametrize("draw", [robustness_figure, evaluations_figure, training_figure])
def test_nothing_measured_is_said(draw):
    run = replace(bare(made_run("teacher")), training=[])
    axes = draw([run]).axes[0]
    assert [text.get_text() for text in axes.texts] == ["not measured"]


def test_legend_is_in_the_first_panel_only_and_can_be_left_out():
    first, second = robustness_figure(made_experiment().runs).axes
    assert [text.get_text() for text in first.get_legend().get_texts()] == LABELS
    assert second.get_legend() is None
    assert robustness_figure(made_experiment().runs, legend=False).axes[0].get_legend() is None


def test_svg_is_the_same_bytes_each_time_and_takes_colours_and_font_from_the_page():
    runs = made_experiment().runs
    first, again = (svg(robustness_figure(runs), "a", "curves") for _ in range(2))
    assert first == again
    assert first.startswith("<svg")
    assert "var(--distilled)" in first
    assert "var(--font)" in first
    assert not any(color in first for color in COLORS.values())
    assert "http" not in first
    assert ">MI-FGSM</text>" in first


def test_importing_the_report_does_not_import_matplotlib():
    code = "import sys, nodestill.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


def test_drawing_does_not_touch_pyplot():
    robustness_figure(made_experiment().runs)
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
