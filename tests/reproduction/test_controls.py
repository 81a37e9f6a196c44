"""The controls: each differs from what it is compared with in one thing, and what is tuned is tuned with equal effort."""

import pytest

import fake_runs
from grid_cells import cells_of, differing, flat, grid
from nodestill.experiments import Role
from nodestill.reproduction.controls import arms, controls
from nodestill.reproduction.grid import Part
from nodestill.reproduction.scales import ScaleName

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
