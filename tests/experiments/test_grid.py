"""The grid as a value: the paper's cells to the letter, controls that differ in one thing, and nothing shrunk in silence."""

from collections import Counter
from dataclasses import replace
from functools import cache

import pytest

import fake_runs
from nodestill.data import Dataset
from nodestill.errors import InputError, RecipeError
from nodestill.experiments import Role, asked_reproduction, to_plain
from nodestill.experiments.controls import arms, controls
from nodestill.experiments.grid import DEPTHS, TEMPERATURES, Cell, Grid, Part, best_cell
from nodestill.experiments.paper import PAPER_DISTILLED, paper
from nodestill.experiments.scale_changes import changes
from nodestill.experiments.scales import ScaleName, scale_named
from nodestill.experiments.work import with_needs, works
from nodestill.training import Optimizer

SETS = (Dataset.CIFAR10, Dataset.SVHN)


def grid(dataset: Dataset = Dataset.CIFAR10, scale: ScaleName = ScaleName.PAPER, seed: int = 0) -> Grid:
    return Grid(dataset, scale_named(scale), seed)


@cache
def cells_of(part: str = "all", scale: str = "cpu", seeds: int = 1) -> tuple[Cell, ...]:
    """The cells of a part on CIFAR-10."""
    return tuple(asked_reproduction(part, "cifar10", scale, seeds).cells())


def flat(value: object, path: str = "") -> dict[str, object]:
    plain = to_plain(value)
    if not isinstance(plain, dict):
        return {path: plain}
    return {key: found for name, inner in plain.items() for key, found in flat(inner, f"{path}.{name}".lstrip(".")).items()}


def differing(one: object, other: object) -> set[str]:
    """Paths of the fields in which two values differ."""
    first, second = flat(one), flat(other)
    return {path for path in {*first, *second} if first.get(path) != second.get(path)}


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
        ("all", "digits", "cpu", 1, "--dataset must be cifar10 or svhn, the paper's, got digits. Digits: --scale smoke"),
        ("all", "cifar", "cpu", 1, "--dataset cannot be 'cifar'. Did you mean 'cifar10'"),
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


IN_ONE_THING = {
    "stem-only": {"t1"},
    "frozen-f": {"frozen"},
    "label-smoothing": {"training.label_smoothing"},
    "self-distillation": set(),
    "logit-mse": {"distillation.objective"},
    "once": {"distillation.once"},
    "kd-reference": set(),
    "double-softmax": {"training.double_softmax"},
    "kd-double-softmax": {"training.double_softmax"},
    "kd-mean": {"distillation.objective"},
    "kd-end-2": {"t1"},
    "kd-end-5": {"t1"},
    "scaled-f": {"t1", "f_scale"},
    "kd-scaled-f": {"t1", "f_scale"},
    "kd-node100": {"t1", "solver.gradient"},  # the same gradients, in less memory
    "twin-evaluations": set(),
    "twin-parameters": set(),
    "twin-macs": set(),
}


@pytest.mark.parametrize(("name", "paths"), IN_ONE_THING.items())
def test_a_control_differs_from_what_it_is_compared_with_in_one_thing(name, paths):
    cells = {cell.name: cell for cell in cells_of()}
    cell, base = cells[name], cells[cells[name].compared]
    assert differing(cell.model, base.model) == paths
    if name not in ("self-distillation", "kd-reference"):
        assert cell.teacher == base.teacher
    assert Part.CONTROLS in cell.parts


def test_other_teachers_are_another_student_and_a_better_network():
    cells = {cell.name: cell for cell in cells_of()}
    assert cells["self-distillation"].teacher.role is Role.UNDISTILLED
    assert cells["kd-reference"].teacher == cells["resnet44-reference"]
    assert cells["resnet44-reference"].model.depth == 44
    assert cells["resnet44-reference"].model != cells["resnet44"].model


def test_the_arms_cross_teacher_and_optimiser_at_three_choices_of_rate():
    found, best = arms(grid(scale=ScaleName.CPU)), grid(scale=ScaleName.CPU).best().model
    crossed = {(cell.teacher is not None, cell.model.training.optimizer, cell.name.split("-")[-1]) for cell in found}
    assert len(found) == len(crossed) == 12
    assert {cell.model.training.lr for cell in found if cell.name.endswith("-paper")} == {0.001}
    for cell in found:  # an arm differs from the best cell in optimiser, rate and teacher alone
        allowed = {"training.optimizer", "training.lr", *[p for p in flat(cell.model) if p.startswith("distillation")]}
        gone = {path for path in flat(best) if path.startswith("distillation")}
        assert differing(cell.model, best) <= allowed | gone | {"distillation"}


@pytest.mark.parametrize("scale", ScaleName)
def test_arms_and_twins_are_tuned_with_equal_effort_away_from_the_test_images(scale):
    tuned = [cell for cell in controls(grid(scale=scale, seed=3)) if cell.tuned]
    assert len(tuned) == 4 + 3
    assert len({len(cell.tuned) for cell in tuned}) == 1
    for cell in tuned:
        assert len({candidate.model.training.lr for candidate in cell.tuned}) == len(cell.tuned) >= 2
        for candidate in cell.tuned:
            assert candidate.model.training.hold_out
            assert candidate.seed == 0
            assert (candidate.teacher is None) == (cell.teacher is None)
            assert candidate.teacher is None or candidate.teacher.model.training.hold_out
            assert (candidate.role, candidate.matched) == (cell.role, cell.matched)
            assert differing(candidate.model, cell.model) <= {"training.hold_out", "training.lr"}


def test_models_of_several_names_are_one_folder(tmp_path):
    """At the scale paper the tables' rate is the paper's, so arms at either are the same trainings."""
    for scale, shared in ((ScaleName.PAPER, True), (ScaleName.CPU, False)):
        known, cells = fake_runs.known(tmp_path), {cell.name: cell for cell in controls(grid(scale=scale))}
        one, other = (known.member(cells[f"kd-sgd-{rate}"]).folder for rate in ("scale", "paper"))
        assert (one == other) is shared
        assert known.member(grid(scale=scale).best()).folder == one
        assert known.member(grid(scale=scale).undistilled(1.0)).folder == known.member(cells["labels-adam-scale"]).folder


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
