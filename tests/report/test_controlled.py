"""Controls of a grid, and what the parts of a model and its training bring."""

import re
from dataclasses import replace

import pytest

from nodestill.report.controlled import controls_table, factors_table, structure
from nodestill.report.said import say
from nodestill.report.solved import change_of, solvers_table
from nodestill.report.spread import difference
from report.made_grids import made_up


def test_controls_say_which_seeds_are_compared_and_how_far_pairs_lie_apart(grid):
    table = controls_table(grid)
    at = {row[0]: dict(zip(table.headers, row)) for row in table.rows}
    found = difference(grid, "stem-only", grid.best)
    assert at["stem alone, distilled"]["SD of pairs"] == f"{100 * found.deviation:.1f}"
    assert table.notes[0].startswith("Differences are of the same seeds")


def test_teachers_and_the_papers_own_models_are_not_counted_as_controls(grid):
    table = controls_table(grid)
    compared = [row[0] for row in table.rows if row[table.headers.index("Compared with")] != "–"]
    first, second = say(grid, "controls")
    assert first.startswith(f"Of {len(compared) - 2} controls ")
    assert first.endswith("the others cannot be told apart.")
    assert "Not counted: “NODE(100), ResNet-44, T = 10”, " in second
    assert "“ResNet-44" in second


def tuned_as_usual(grid):
    """The grid, had tuning chosen the rates of the tables."""
    usual = {(cell.name.replace("-scale", "-tuned"), cell.seed): cell for cell in grid.cells if cell.name.endswith("-scale")}

    def tuned(cell):
        same = usual.get((cell.name, cell.seed), cell)
        return replace(cell, folder=same.folder, run=same.run)

    return replace(grid, cells=tuple(tuned(cell) for cell in grid.cells))


def test_controls_that_are_the_same_runs_are_one_line(grid):
    apart, confirmed = ([row[0] for row in controls_table(one).rows] for one in (grid, tuned_as_usual(grid)))
    best = grid.first(grid.best).about
    assert f"{best} (also: distilled, SGD, rate of the tables)" in apart  # the cell of the tables and this arm
    assert {"labels, SGD, rate of the tables", "labels, SGD, tuned rate"} < set(apart)
    assert "labels, SGD, rate of the tables (also: labels, SGD, tuned rate)" in confirmed
    assert f"{best} (also: distilled, SGD, rate of the tables; distilled, SGD, tuned rate)" in confirmed
    assert len(confirmed) == len(apart) - 4
    empty = replace(grid, cells=tuple(replace(cell, folder=None, run=None) for cell in grid.cells))
    assert len(controls_table(empty).rows) == len(grid.names("controls"))


def test_rates_that_tuning_confirms_are_one_choice(grid):
    apart = [row[1] for row in factors_table(grid).rows]
    confirmed = [row[1] for row in factors_table(tuned_as_usual(grid)).rows]
    assert apart.count("tuned rates") == apart.count("the paper's rates") == 5
    assert "tuned rates" not in confirmed
    assert confirmed[:5] == ["the tables' rates, which tuning confirms"] * 5
    assert len(confirmed) == len(apart) - 5


def test_the_gain_says_whose_epochs_are_few(grid):
    ((here, there),) = [(here, there) for field, here, there in grid.changes if field == "student.training.epochs"]
    note = f"At the paper's rates students are undertrained: the paper trains them for {there} epochs, we for {here}."
    assert note in factors_table(grid).notes


PARTS = [  # accuracies of the best cell, of the stem alone and with a random f, and what is said of them
    ((0.8, 0.3, 0.5), "{} points above guessing; the equation adds {}; a learned f in place of a random one adds {}."),
    ((0.3, 0.6, 0.5), "{} points above guessing; the equation takes {} away; a learned f in place of a random one takes {} aw"),
    (
        (0.1, 0.1, 0.1),
        "not told from guessing, {} points; the equation makes no difference that can be told from none, {}; "
        "a learned f in place of a random one makes no difference that can be told from none, {}.",
    ),
    ((0.1, 0.01, 0.1), "{} points below guessing; the equation adds {}; a learned f in place of a random one makes no diff"),
]


@pytest.mark.parametrize(("shares", "said"), PARTS)
def test_what_the_parts_of_a_cell_do_is_said_in_words_that_fit_the_sign(shares, said, tmp_path):
    best, stem, random = shares
    found = made_up(tmp_path, {"kd-T": best, "stem": stem, "frozen": random}, 1, part="controls")
    signed = r"[-+]?[0-9.]+ \([-+]?[0-9.]+ to [-+]?[0-9.]+\)"
    pattern = re.escape(f"In the paper's best cell, “NODE(1), ResNet-44, T = 10”, the stem alone is {said}").replace(
        r"\{\}", signed
    )
    sentence = say(found, "factors")[-1]
    assert re.match(pattern, sentence), sentence
    assert not re.search(r"(adds|takes) [-+]", sentence)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (-0.2, ": so much of it is the equation's"),
        (0.001, ", which is not told from none: nothing of it is shown to be the equation's"),
        (0.2, ": the equation costs so much of it"),
    ],
)
def test_what_leaving_the_equation_out_means_depends_on_its_sign(change, said, grid):
    def changed(cell):
        rows = [{**row, "images": 1000, "difference": change, "agreement": 0.8} for row in cell.solvers]
        return replace(cell, solvers=tuple(rows))

    found = replace(grid, cells=tuple(changed(cell) for cell in grid.cells))
    assert say(found, "solvers")[1].startswith(f"Without the equation it moves by {100 * change:+.2f} (")
    assert f"{said}, with these weights." in say(found, "solvers")[1]
    assert f"moves its accuracy by {100 * change:+.1f} points" in solvers_table(found).notes[1]


def test_a_change_of_solver_has_the_interval_of_the_images_that_changed_class():
    rows = [{"images": 1000, "difference": -0.01, "agreement": 0.97}]
    centre = -10 / 1002
    reach = 1.96 * ((32 / 1002 - centre**2) / 1002) ** 0.5  # Bonett and Price: 30 images changed, by 10 in all
    assert change_of(rows) == f"-1.00 ({100 * (centre - reach):+.2f} to {100 * (centre + reach):+.2f})"


def test_leaving_the_equation_out_is_set_beside_training_without_it(grid):
    ode = structure(grid)["ODE, above the stem alone"]
    assert "moves its accuracy by -20.0 points, as stem" in solvers_table(grid).notes[1]
    assert f"without one moves it by {-100 * ode.mean:+.1f} (“Where" in solvers_table(grid).notes[1]
