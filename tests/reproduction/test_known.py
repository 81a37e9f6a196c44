"""What the settings of a cell hang on: rates that were tried, evaluations of the student that a twin equals."""

from dataclasses import replace

import pytest

import fake_runs
from fake_grids import asked, named, worked
from nodestill.experiments.members import build_model
from nodestill.experiments.store import DIVERGED
from nodestill.reproduction import asked_reproduction
from nodestill.reproduction.grid_records import read_grid
from nodestill.reproduction.known import twin
from nodestill.reproduction.reproduce import write_listing
from nodestill.reproduction.schedule import standing


def test_a_rate_is_the_one_that_was_best_on_validation(controlled):
    what, known, _ = controlled
    for arm in ("kd-sgd-tuned", "labels-adam-tuned", "twin-evaluations"):
        cell = named(what, arm, seed=1)
        assert cell.tuned
        accuracy = {}
        for candidate in cell.tuned:
            folder = known.store.folder(known.member(candidate).folder)
            accuracy[candidate.model.training.lr] = folder.read("evaluation.json")["clean"]["accuracy"]
        chosen = known.member(cell).model
        assert chosen.training.lr == max(accuracy, key=lambda rate: accuracy[rate])
        assert not chosen.training.hold_out


def test_the_lower_of_two_equal_rates_is_taken(tmp_path):
    what, known = asked(), fake_runs.known(tmp_path)
    cell = named(what, "labels-sgd-tuned")
    for candidate in cell.tuned:
        assert known.member(cell) is None
        fake_runs.finish(standing([candidate], known, what.scale).left[known.member(candidate).folder], known, 0.5)
    assert known.member(cell).model.training.lr == min(candidate.model.training.lr for candidate in cell.tuned)


def test_a_twin_is_sized_by_what_its_student_measured(controlled):
    what, known, _ = controlled
    blocks = {way: known.member(named(what, f"twin-{way}")).model.blocks for way in ("evaluations", "parameters", "macs")}
    assert blocks == {"evaluations": 12, "parameters": 1, "macs": 4}
    for way, count in blocks.items():
        tried = named(what, f"twin-{way}").tuned
        assert {known.member(one).model.blocks for one in tried} == {count}


def test_twins_are_equal_in_what_they_say():
    student = replace(named(asked_reproduction("controls", "cifar10", "cpu", 1), "twin-macs").model, channels=64)
    for evaluations in (9.6, 20.0, 31.0):
        sizes = {way: twin(student, way, evaluations) for way in ("evaluations", "parameters", "macs")}
        assert sizes["evaluations"].blocks == round(evaluations)
        assert {sizes[way].channels for way in ("evaluations", "parameters")} == {student.channels}  # so is the stem
        weights = sizes["macs"].blocks * sizes["macs"].channels ** 2  # of the convolutions, over 9 and layers
        assert weights == pytest.approx(round(evaluations) * student.channels**2, rel=0.05)


def test_the_twin_of_as_many_parameters_has_exactly_those_of_the_neural_ode():
    student = named(asked_reproduction("controls", "cifar10", "cpu", 1), "twin-parameters").model
    node, alike = (build_model(recipe, 0, 10).state_dict() for recipe in (student, twin(student, "parameters", 20.0)))
    assert sorted(value.shape for value in alike.values()) == sorted(value.shape for value in node.values())


def test_a_twin_is_sized_by_and_compared_with_the_student_whose_rate_is_tuned(controlled):
    what, known, _ = controlled
    for way in ("evaluations", "parameters", "macs"):
        cell = named(what, f"twin-{way}", seed=1)
        assert (cell.twin_of.name, cell.twin_of.seed) == (cell.compared, 1) == ("kd-sgd-tuned", 1)
        assert known.member(cell.twin_of).folder in {work.name for work in standing(what.cells(), known, what.scale).done}


def test_a_cell_whose_every_rate_diverged_is_given_up_and_says_so(tmp_path):
    what, known = asked(), fake_runs.known(tmp_path)
    cell = named(what, "kd-sgd-tuned")
    for candidate in cell.tuned:
        assert not known.is_hopeless(cell)
        known.store.folder(known.member(candidate).folder).write(DIVERGED, {"why": "the loss is nan", "schema": 1})
    twins = [named(what, f"twin-{way}") for way in ("evaluations", "parameters", "macs")]
    assert all(map(known.is_hopeless, (cell, *twins)))  # a twin is sized by it
    assert worked(what, known)[0] == {}
    now = standing(what.cells(), known, what.scale)
    assert (now.left, now.waiting) == ({}, ())
    listed = read_grid(write_listing(what, known, {}).path)
    assert {listed.first(one.name).failed for one in (cell, *twins)} == {"every rate that was tried diverged"}
    hopeless = [cell for cell in listed.cells if cell.run is None and "controls" in cell.parts]
    assert {cell.name for cell in hopeless} == {one.name for one in (cell, *twins)}
    assert all(cell.diverged for cell in hopeless)
