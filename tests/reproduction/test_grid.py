"""The grid as a value: the paper's cells to the letter, and nothing shrunk in silence."""

from collections import Counter
from dataclasses import replace

import pytest

import fake_runs
from grid_cells import cells_of, differing, flat, grid
from nodestill.data import Dataset
from nodestill.errors import InputError, RecipeError
from nodestill.experiments import Role
from nodestill.experiments.paper import PAPER_DISTILLED, paper
from nodestill.reproduction import asked_reproduction
from nodestill.reproduction.controls import arms, controls
from nodestill.reproduction.grid import DEPTHS, TEMPERATURES, Part, best_cell
from nodestill.reproduction.scale_changes import changes
from nodestill.reproduction.scales import ScaleName, scale_named
from nodestill.reproduction.work import with_needs, works
from nodestill.training import Optimizer

SETS = (Dataset.CIFAR10, Dataset.SVHN)


@pytest.mark.parametrize("dataset", SETS)
def test_the_scale_paper_is_the_paper_to_the_letter(dataset):
    cells = {cell.name: cell for cell in grid(dataset).papers_cells()}
    for depth in DEPTHS:
        assert cells[f"resnet{depth}"].model == paper(dataset, depth, 3.0, 1.0).teacher
        for temperature in TEMPERATURES:
            cell, recipe = cells[f"kd-T{temperature:g}-resnet{depth}"], paper(dataset, depth, temperature, 1.0)
            assert cell.model == recipe.student
            assert cell.teacher.model == recipe.teacher
            assert cell.paper == PAPER_DISTILLED[dataset][int(temperature)].get(depth)
    for t1 in (1.0, 100.0):
        recipe = paper(dataset, *best_cell(dataset), t1)
        assert differing(cells[f"node{t1:g}"].model, recipe.student) <= {
            "distillation",
            "training.optimizer",
            *[path for path in flat(recipe.student) if path.startswith("distillation")],
        }
        assert cells[f"node{t1:g}"].model.training == recipe.undistilled
        assert cells[f"node{t1:g}"].attack == recipe.robustness
    assert changes(scale_named(ScaleName.PAPER), dataset, *best_cell(dataset)) == []


def test_the_best_cells_are_the_papers():
    assert [best_cell(dataset) for dataset in SETS] == [(44, 10.0), (110, 3.0)]


def test_node_500_is_of_cifar_alone():
    assert [("node500" in {cell.name for cell in grid(dataset).papers_cells()}) for dataset in SETS] == [True, False]
    with pytest.raises(RecipeError, match="Table 3 is of CIFAR-10 alone, got --dataset svhn"):
        asked_reproduction("table3", "svhn", "cpu", None)


@pytest.mark.parametrize(
    ("part", "dataset", "scale", "seeds", "said"),
    [
        ("table9", "cifar10", "cpu", 1, "What to reproduce cannot be 'table9'. Did you mean"),
        ("all", "digits", "cpu", 1, "--dataset must be cifar10 or svhn, the paper's, got 'digits'. Digits: --scale smoke"),
        ("all", "cifar", "cpu", 1, "--dataset must be cifar10 or svhn, the paper's, got 'cifar'"),
        ("all", "cifar10", "tiny", 1, "--scale cannot be 'tiny'"),
        ("all", "cifar10", "cpu", 0, "--seeds must be at least 1, got 0. Leave it out for 3"),
    ],
)
def test_what_cannot_be_reproduced_is_refused(part, dataset, scale, seeds, said):
    with pytest.raises((RecipeError, InputError), match=said):
        asked_reproduction(part, dataset, scale, seeds)


@pytest.mark.parametrize("scale", ScaleName)
def test_names_are_unique_and_every_seed_that_is_asked_for_has_the_same_cells(scale):
    cells = cells_of("all", scale.value, 2)
    names = Counter((cell.name, cell.seed) for cell in cells)
    assert set(names.values()) == {1}
    by_seed = [[cell.name for cell in cells if cell.seed == seed] for seed in (0, 1)]
    assert by_seed[0] == by_seed[1]


def test_if_no_seeds_are_asked_for_what_decides_has_several_and_the_rest_one():
    asked = asked_reproduction("all", "cifar10", "cpu", None)
    seeds = Counter(cell.name for cell in asked.all_cells())
    several = {name for name, count in seeds.items() if count == 3}
    assert several == {
        *[f"kd-T10-resnet{depth}" for depth in DEPTHS],
        *[cell.name for cell in arms(grid())],
        "node1",
        "stem-only",
        "frozen-f",
        "twin-evaluations",
        "twin-parameters",
        "twin-macs",
    }
    assert set(seeds.values()) == {1, 3}
    assert asked.about_seeds.startswith("3 of the cells that are compared")
    assert {cell.seed for cell in asked_reproduction("all", "cifar10", "cpu", 2).all_cells() if cell.name == "node500"} == {
        0,
        1,
    }


def test_horizons_differ_in_nothing_else():
    """NODE(100) and NODE(500) are trained as NODE(1) is, by the same optimiser, for as long."""
    for scale in ScaleName:
        cells = {cell.name: cell for cell in (*grid(scale=scale).papers_cells(), *controls(grid(scale=scale)))}
        for long, short in (("node100", "node1"), ("node500", "node1"), ("kd-node100", "kd-adam-scale")):
            assert differing(cells[long].model, cells[short].model) <= {"t1", "solver.gradient"}
            assert cells[long].attack.eps_255 == cells[short].attack.eps_255
            assert cells[long].teacher == cells[short].teacher


@pytest.mark.parametrize("part", Part)
def test_every_part_has_cells_and_all_has_those_of_every_part(part):
    assert {cell.name for cell in cells_of(part.value)} <= {cell.name for cell in cells_of()}
    assert cells_of(part.value)


def test_the_claims_need_no_controls_but_the_tables_and_the_figure():
    for part in ("table1", "table2", "table3", "figure1"):
        assert {cell.name for cell in cells_of(part)} <= {cell.name for cell in cells_of("claims")}


def test_what_is_needed_comes_first(tmp_path):
    asked = asked_reproduction("controls", "svhn", "smoke", 2)
    order = [(cell.name, cell.seed) for cell in with_needs(asked.cells())]
    for cell in with_needs(asked.cells()):
        for needed in cell.needs:
            assert order.index((needed.name, needed.seed)) < order.index((cell.name, cell.seed))
    names = [work.name for work in works(asked.cells(), fake_runs.known(tmp_path), 50, 50)]
    assert len(names) == len(set(names))


def test_nothing_is_shrunk_in_silence():
    """Every field of a cell that differs from the paper's stands in the table of changes."""
    for scale in (ScaleName.SMOKE, ScaleName.CPU, ScaleName.GPU):
        said = {field.partition(", t1")[0] for field, _, _ in changes(scale_named(scale), Dataset.CIFAR10, 44, 10.0)}
        for ours, theirs in zip(grid(scale=scale).papers_cells(), grid().papers_cells(), strict=True):
            kind = "teacher" if ours.role is Role.TEACHER else "student"
            where = "undistilled" if ours.role is Role.UNDISTILLED else "student.training"
            for path in differing(ours.model, theirs.model):
                path = path if path != "width" else "width"
                full = f"{kind}.{path}" if not (kind == "student" and path.startswith("training.")) else path
                full = full.replace("training.", f"{where}.", 1) if full.startswith("training.") else full
                assert full in said, (scale, ours.name, full)
            if ours.attack is not None:
                assert {f"robustness.{path}" for path in differing(ours.attack, theirs.attack)} <= said


def test_a_scale_says_the_papers_value_beside_its_own():
    found = {field: (here, there) for field, here, there in changes(scale_named(ScaleName.CPU), Dataset.CIFAR10, 44, 10.0)}
    assert found["teacher.width"] == ("8", "16")
    assert found["student.channels"] == ("16", "512")
    assert found["student.training.epochs"] == ("3", "200")
    assert found["robustness.images"] == ("1000", "all")
    assert found["robustness.images, t1 = 100 and more"] == ("256", "all")
    assert "teacher.depth" not in found


def test_the_optimisers_are_the_papers_in_every_table():
    for scale in ScaleName:
        for cell in grid(scale=scale).papers_cells():
            long_or_alone = cell.role is Role.UNDISTILLED or (cell.role is Role.DISTILLED and cell.model.t1 > 1)
            assert cell.model.training.optimizer is (Optimizer.ADAM if long_or_alone else Optimizer.SGD), cell.name
    assert replace(grid(), seed=1).best().teacher.seed == 1
