"""Tables: golden text from hand-made records, and every number traced back to the row that holds it."""

import re
from dataclasses import replace

import pytest

from nodestill.report import Table, accuracy_table
from nodestill.report.behind import about_environments, environment_table, runs_table, shared_environment, sweep_table
from nodestill.report.formats import NOTHING, duration, interval, joined, magnitude, percent
from report.made_records import bare, made_experiment, made_run

GOLDEN = """\
| Role | Model | Clean | 95 % interval | Paper | PGD 4/255 | PGD 8/255 | PGD 16/255 | MI-FGSM 4/255 | MI-FGSM 8/255 | \
MI-FGSM 16/255 | Agrees with teacher | Parameters | MACs | NFE | Training |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| Teacher | ResNet-20 | 91.7 % | 89.8–93.3 | – | 22.5 % | 3.6 % | 0.5 % | 13.1 % | 1.9 % | 0.2 % | – | 270 k | 40.6 M | – | \
21 min |
| Distilled | NODE(1) | 87.3 % | 85.1–89.2 | 88.03 % | 67.5 % | 33.5 % | 18.8 % | 49.8 % | 12.5 % | 1.8 % | 89.4 % | 1.26 M | \
1.21 G | 23.8 (14–38) | 21 min |
| Undistilled | NODE(1) | 85.6 % | 83.3–87.6 | 63.45 % | 40.8 % | 8.7 % | 1.2 % | 27.2 % | 4.7 % | 0.6 % | 87.7 % | 1.26 M | \
1.02 G | 19.2 (14–32) | 21 min |
| Stem only | stem only | 74.1 % | 71.3–76.7 | – | 27.8 % | 5.2 % | 0.7 % | 17.4 % | 2.7 % | 0.4 % | 76.2 % | 1.26 M | 59.0 M \
| 0 | 21 min |

- Clean: share of all 1,000 test images (CIFAR-10, JPEG mirror) that are classified right, with its 95 % Wilson interval.
- PGD and MI-FGSM: share of 1,000 test images still classified right when every pixel may move by that much. Not audited.
- MACs: multiply-accumulates of one image; for a Neural ODE stem + NFE × f + head.
- NFE: calls of f per clean test image, mean (smallest–largest).
"""


def test_accuracy_table_is_the_golden_text():
    table = accuracy_table(made_experiment(), {"distilled": 88.03, "undistilled": 63.45})
    assert table.to_markdown() == GOLDEN


def test_every_cell_is_the_number_of_its_row():
    experiment = made_experiment()
    table = accuracy_table(experiment)
    for run, cells in zip(experiment.runs, table.rows):
        named = dict(zip(table.headers, cells))
        assert named["Clean"] == f"{100 * run.evaluation['clean']['accuracy']:.1f} %"
        for attack, title in (("pgd", "PGD"), ("mi-fgsm", "MI-FGSM")):
            for eps in (4, 8, 16):
                (row,) = [r for r in run.robustness if r["attack"] == attack and r["eps_255"] == eps]
                assert named[f"{title} {eps}/255"] == f"{row['correct'] / row['images']:.1%}".replace("%", " %")


def test_a_changed_row_changes_the_table():
    run = made_run("distilled")
    other = replace(run, robustness=[{**row, "accuracy": 0.4321} for row in run.robustness])
    cells = accuracy_table(replace(made_experiment(), runs=(other,))).rows[0]
    assert cells.count("43.2 %") == 6


def test_paper_column_only_where_a_number_was_published():
    assert "Paper" not in accuracy_table(made_experiment()).headers
    assert "Paper" not in accuracy_table(made_experiment("teacher"), {"distilled": 88.03}).headers


def test_teacher_alone_has_no_empty_columns():
    experiment = made_experiment("teacher")
    table = accuracy_table(replace(experiment, runs=(bare(experiment.runs[0]),)))
    assert table.headers == ("Role", "Model", "Clean", "95 % interval", "Parameters", "MACs", "Training")
    assert not any("NFE" in note or "PGD" in note for note in table.notes)


def test_unusual_radii_are_shown_instead():
    run = made_run("teacher")
    run = replace(run, robustness=[row for row in run.robustness if row["eps_255"] in (0, 1, 2, 3)])
    headers = accuracy_table(replace(made_experiment(), runs=(run,))).headers
    assert [h for h in headers if h.startswith("PGD")] == ["PGD 3/255"]


def test_a_wider_sweep_is_quoted_at_a_quarter_half_and_all_of_it():
    run = made_run("teacher")
    run = replace(run, robustness=[{**row, "eps_255": 3 * row["eps_255"]} for row in run.robustness])
    headers = accuracy_table(replace(made_experiment(), runs=(run,))).headers
    assert [h for h in headers if h.startswith("PGD")] == ["PGD 15/255", "PGD 30/255", "PGD 60/255"]


def test_interrupted_sweep_leaves_a_dash():
    whole, part = made_run("teacher"), made_run("distilled")
    part = replace(part, robustness=[row for row in part.robustness if row["attack"] == "pgd"])
    table = accuracy_table(replace(made_experiment(), runs=(whole, part)))
    assert dict(zip(table.headers, table.rows[1]))["MI-FGSM 8/255"] == NOTHING


def test_failed_clean_images_are_noted():
    run = made_run("distilled")
    failing = {**run.evaluation, "clean": {**run.evaluation["clean"], "failed": 3}}
    notes = accuracy_table(replace(made_experiment(), runs=(replace(run, evaluation=failing),))).notes
    assert notes[-1] == "Distilled: 3 clean images without finite logits count as wrong."


def test_text_form_and_escapes():
    table = Table(("a|b", "n"), (("<x>", "1"),), keys=('q"',))
    assert table.cells() == [["a|b", "n"], ["<x>", "1"]]
    assert table.to_markdown() == "| a\\|b | n |\n| --- | ---: |\n| <x> | 1 |\n"
    assert "&lt;x&gt;" in table.to_html()
    assert 'class="q&quot;"' in table.to_html()


def test_runs_table_names_folder_fingerprint_and_commit():
    row = runs_table([made_run("distilled")]).rows[0]
    assert row == ("Distilled NODE(1)", "student-cifar10-distilled-97a3d909", "97a3d909", "5c0ffee1", "0", "6101d99f3c")


def test_what_is_equal_in_all_environments_is_one_sentence():
    runs = list(made_experiment().runs)
    whole = "Environment of all models: nodestill 0.1.0; commit 6101d99f3c; python 3.11.9; torch 2.6.0+cpu; threads 1."
    assert about_environments(runs) == (shared_environment(runs),) == (whole,)
    assert environment_table(runs).rows == ()
    runs[0] = replace(runs[0], environment={**runs[0].environment, "commit": None, "device": "GPU"})
    assert shared_environment(runs) == whole.replace(" commit 6101d99f3c;", "")
    table = environment_table([*runs, runs[1]])
    assert table.headers == ("commit", "device", "Models")
    assert table.rows == (
        (NOTHING, "GPU", "Teacher ResNet-20"),
        ("6101d99f3c", NOTHING, "2 × Distilled NODE(1), Undistilled NODE(1), Stem only"),
    )
    assert about_environments(runs)[1] == environment_table(runs).to_markdown()
    assert about_environments([]) == ()


def test_sweep_table_has_every_row():
    run = made_run("distilled")
    table = sweep_table(run)
    assert len(table.rows) == len(run.robustness)
    assert table.rows[8][:6] == ("PGD", "8", "10", "33.5 %", "30.6–36.5", "33.3 %")
    assert all(re.fullmatch(r"[\d.]+ s|1 min 0\d s", row[-1]) for row in table.rows)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.7, "1 min 00 s"),
        (599.6, "10 min"),
        (3599.6, "1 h 00 min"),
        (9000, "2 h 30 min"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0"),
        (999, "999"),
        (999.6, "1.00 k"),
        (9_996, "10.0 k"),
        (269_722, "270 k"),
        (999_600, "1.00 M"),
        (6.04e8, "604 M"),
    ],
)
def test_magnitude(value, text):
    assert magnitude(value) == text


def test_small_forms():
    assert percent(None) == "–"
    assert percent(0.12345) == "12.3 %"
    assert interval(0.1, 0.25) == "10.0–25.0"
    assert [joined(parts) for parts in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
