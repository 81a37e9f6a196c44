"""The plan of a grid and its listing: what is done and left, how long it will take, rates that diverge, other seeds."""

from dataclasses import replace

import pytest
import torch

import fake_runs
from fake_grids import asked, begin, fresh, named
from nodestill.data import Dataset, ImageCounts
from nodestill.errors import SolveError, TrainingError
from nodestill.experiments import Workspace, to_plain
from nodestill.experiments.store import DIVERGED
from nodestill.reproduction import estimate as estimates
from nodestill.reproduction.estimate import Pace, estimate
from nodestill.reproduction.grid import Cell
from nodestill.reproduction.grid_records import read_grid
from nodestill.reproduction.kept import keep
from nodestill.reproduction.known import Known
from nodestill.reproduction.reproduce import Asked, kinds_of, planned, write_listing
from nodestill.reproduction.schedule import standing
from nodestill.reproduction.work import Images, carry_out, left_of


@pytest.fixture
def begun(tmp_path) -> tuple[Asked, Known]:
    return begin(tmp_path / "first")


def test_the_plan_counts_what_is_done_and_what_is_left(begun):
    what, known = begun
    plan = planned(what, known, "cpu")
    assert all(plan.seconds[work.name] == 0 for work in plan.standing.done)
    assert all(0 < plan.seconds[name] < 600 for name in plan.standing.left)
    assert plan.later == 0
    assert [(kind, left) for kind, _, _, left, _ in kinds_of(plan)] == [("teachers", "0"), ("students", "3")]


@pytest.mark.parametrize(("share", "timed"), [(0.0001, [8, 32, 128, 128]), (0.1, [8, 32]), (1.0, [8])])
def test_the_pace_is_that_of_the_largest_batch_that_is_soon_timed(share, timed, monkeypatch):
    sizes = []

    def step(model: object, images: torch.Tensor, precision: object) -> float:
        sizes.append(len(images))
        return 0.1 + share * len(images)  # however few images there are, a step costs something

    monkeypatch.setattr(estimates, "_step_seconds", step)
    model = named(asked("table1"), "node1").model
    pace = estimates._pace(model, Dataset.DIGITS, torch.device("cpu"))
    assert sizes == timed
    assert pace * estimates._macs(model, Dataset.DIGITS) == pytest.approx(share + 0.1 / timed[-1])


def test_the_plan_counts_what_waits_for_settings(tmp_path, monkeypatch):
    monkeypatch.setattr("nodestill.reproduction.estimate._calibrated", lambda *_: Pace(1e-9, 1e-9))
    known, what = fake_runs.known(tmp_path), asked()
    plan = planned(what, known, "cpu")
    one = plan.seconds[known.member(named(what, "kd-sgd-paper")).folder]  # trained alone: neither attacked nor scored
    assert 9 < plan.later / one < 13  # four tuned arms, three twins and their rates, some without a teacher or on fewer images
    assert kinds_of(plan)[-1][:4] == ("settings not known yet", "13", "0", "13")
    assert plan.total > plan.later


def test_the_plan_goes_by_the_images_that_are_there(tmp_path, monkeypatch):
    monkeypatch.setattr("nodestill.reproduction.estimate._calibrated", lambda *_: Pace(1e-9, 1e-9))
    known, what = fake_runs.known(tmp_path), asked("table1")
    tenth = replace(known, counts=ImageCounts(known.counts.train // 10, known.counts.test // 10))
    some = [
        replace(work, attacks=(), scored_images=0, monitor_images=0)
        for work in standing(what.cells(), known, what.scale).left.values()
    ]
    whole, part = (sum(estimate(some, [], one, torch.device("cpu"))[0].values()) for one in (known, tenth))
    assert part == pytest.approx(whole / 10, rel=0.05)


def test_the_listing_names_every_cell_and_its_folder(begun):
    what, known = begun
    listing = write_listing(what, known, {}).read("grid.json")
    names = {(entry["name"], entry["seed"]) for entry in listing["cells"]}
    assert {(cell.name, cell.seed) for cell in what.all_cells()} < names
    assert {name for name, _ in names} >= {"resnet44-held-out", "labels-adam-tuned-0.02"}
    by_name = {entry["name"]: entry for entry in listing["cells"]}
    assert by_name["kd-T10-resnet44"]["paper"] == 88.03
    assert (by_name["kd-T10-resnet44"]["depth"], by_name["kd-T10-resnet44"]["temperature"]) == (44, 10.0)
    assert by_name["kd-sgd-tuned"]["folder"] is None
    assert to_plain(what.changes()) == listing["changes"]


def diverge(cell: Cell, known: Known) -> None:
    """Leave what a training leaves whose rate was too high."""
    folder = known.store.folder(known.member(cell).folder)
    folder.write("environment.json", {"device": "none"})
    folder.write(DIVERGED, {"why": "the mean loss of epoch 1 is nan", "schema": 1})


def test_a_rate_that_diverges_is_out_and_done(tmp_path):
    what, known = asked(), fake_runs.known(tmp_path / "first")
    arm = named(what, "labels-sgd-tuned")
    low, high = arm.tuned
    diverge(high, known)
    assert known.member(arm) is None
    for work in standing([low], known, what.scale).left.values():
        fake_runs.finish(work, known, 0.1)
    assert known.member(arm).model.training.lr == low.model.training.lr
    assert standing([high], known, what.scale).left == {}
    assert planned(what, known, "cpu").total > 0  # its folder has no times to learn from
    listed = read_grid(write_listing(what, known, {}).path)
    assert "mean loss" in next(cell.failed for cell in listed.cells if cell.name == high.name)
    keep(
        known.store.folder(known.member(high).folder), tmp_path / "rows" / what.name / known.member(high).folder, weights=False
    )
    again_known, _ = fresh(what, tmp_path / "rows", tmp_path / "second")
    assert standing([high], again_known, what.scale).left == {}


def test_a_diverging_rate_is_written_down_where_it_diverged(tmp_path):
    what, known = asked(), fake_runs.known(tmp_path)
    cell = named(what, "labels-sgd-tuned").tuned[0]
    plan = replace(cell.model.training, lr=1e30)
    cell = replace(cell, model=replace(cell.model, training=plan))
    (work,) = standing([cell], known, what.scale).left.values()
    with pytest.raises((TrainingError, SolveError)):
        carry_out(work, Workspace(known.store, accelerator="cpu"), known, Images(known.dataset, None))
    assert known.store.folder(work.name).has_diverged
    assert left_of(work, known).nothing


def test_finished_seeds_stay_listed_and_those_of_other_settings_do_not(tmp_path):
    known = fake_runs.known(tmp_path)
    two, one = asked("table1", seeds=2), asked("table1", seeds=1)
    for work in standing(two.cells(), known, two.scale).left.values():
        fake_runs.finish(work, known)
    write_listing(two, known, {})
    seeds = {cell.seed for cell in read_grid(write_listing(one, known, {}).path).cells if cell.name == "node100"}
    assert seeds == {0, 1}
    longer = replace(one, scale=replace(one.scale, shrunk=replace(one.scale.shrunk, epochs=9)))
    found = read_grid(write_listing(longer, known, {}).path)
    assert [cell.run for cell in found.cells if cell.name == "node100"] == [None]
