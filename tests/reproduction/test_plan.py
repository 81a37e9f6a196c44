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
from nodestill.reproduction.plan import kinds_of, left_models, planned
from nodestill.reproduction.reproduce import Asked, write_listing
from nodestill.reproduction.schedule import standing
from nodestill.reproduction.work import Images, carry_out, left_of


@pytest.fixture
def begun(tmp_path) -> tuple[Asked, Known]:
    return begin(tmp_path / "first")


@pytest.fixture
def quick(monkeypatch) -> None:
    """A pace that nobody measured."""
    monkeypatch.setattr("nodestill.reproduction.estimate._calibrated", lambda *_: Pace(1e-9, 1e-9))


def test_the_plan_counts_what_is_done_and_what_is_left(begun):
    what, known = begun
    plan = planned(what, known, "cpu")
    assert plan.seconds.keys() == plan.standing.left.keys()
    assert all(0 < seconds.both < 600 for seconds in plan.seconds.values())
    assert (plan.later, plan.scored_only, plan.to_train) == ({}, frozenset(), 3)
    assert [kind[:5] for kind in kinds_of(plan)] == [("teachers", 5, 5, 0, 0), ("students", 15, 12, 3, 0)]


def test_a_trained_model_that_lacks_scores_is_only_to_be_scored(begun, quick):
    what, known = begun
    best = known.store.folder(known.member(named(what, "kd-T10-resnet44")).folder)
    (best.path / "solvers.jsonl").unlink()
    plan = planned(what, known, "cpu")
    assert (plan.scored_only, plan.to_train) == ({best.path.name}, 3)
    assert plan.seconds[best.path.name].training == 0 < plan.seconds[best.path.name].scoring
    assert kinds_of(plan)[-1][:5] == ("students", 15, 11, 3, 1)
    left = left_models(plan, what, known)
    assert [model.lacks for model in left] == [*["training"] * 3, "scores under other solvers"]
    assert left[-1][::3] == ("NODE(1), ResNet-44, T = 10", best.path.name)
    (best.path / "robustness.jsonl").unlink()
    assert left_models(planned(what, known, "cpu"), what, known)[-1].lacks == "attacks, scores under other solvers"


def test_a_model_is_not_shared_out_and_waits_for_its_teacher(tmp_path, quick):
    known = fake_runs.known(tmp_path)
    one = planned(asked("table3"), known, "cpu")
    assert len(one.seconds) == 1
    assert one.seconds_at_once(2) == one.total > 0
    many = planned(asked("table2"), known, "cpu")
    seconds, left = many.seconds, many.standing.left
    pairs = [(seconds[work.teacher.folder].training, seconds[name].both) for name, work in left.items() if work.teacher]
    assert many.seconds_at_once(1000) == max(map(sum, pairs))
    assert many.seconds_at_once(1) == pytest.approx(many.total)


def test_a_chain_goes_on_through_rates_and_sizes_that_are_not_known(tmp_path, quick):
    known, what = fake_runs.known(tmp_path), asked()
    plan, arm = planned(what, known, "cpu"), named(what, "kd-sgd-tuned")
    first = arm.tuned[0]
    trained = [plan.seconds[known.member(cell).folder].training for cell in (first.teacher, first)]
    rate_known = sum(trained) + plan.later["kd-sgd-tuned", 0].training
    assert plan.longest >= rate_known + plan.later["twin-macs", 0].both > rate_known


def test_with_nothing_left_nothing_is_timed(begun, monkeypatch):
    what, known = begun
    for work in standing(what.cells(), known, what.scale).left.values():
        fake_runs.finish(work, known)
    monkeypatch.setattr("nodestill.reproduction.plan.estimate", None)
    plan = planned(what, known, "cpu")
    assert (plan.to_train, plan.seconds_at_once(2)) == (0, 0)
    assert left_models(plan, what, known) == []


def test_a_training_that_is_made_again_takes_its_time_again(begun, quick):
    what, known = begun
    teacher = known.store.folder(known.member(named(what, "kd-T3-resnet20").teacher).folder)
    (teacher.path / "DONE").unlink()
    teacher.mark("ROWS")  # weights were not kept, and three students need them
    plan = planned(what, known, "cpu")
    assert plan.seconds[teacher.path.name].training > 0
    assert plan.to_train == 4


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


def test_a_step_of_an_attack_is_two_thirds_of_one_of_training(tmp_path, quick):
    known, what = fake_runs.known(tmp_path), asked("table1")
    cell = named(what, "node1")
    (work,) = standing([cell], known, what.scale).left.values()
    work = replace(work, scored_images=0, monitor_images=0)
    ((training, scoring),) = estimate([], [work], [], known, torch.device("cpu"))[0].values()
    views = cell.model.training.epochs * known.counts.train + known.counts.test / 3  # its evaluation is a third of a step
    calls = 10 + 15 + 20 + 24 + 20 + 5 * 4  # PGD at 8, 12, 16 and 20; MI-FGSM shares 20, with 4 more at each of five radii
    assert scoring / (cell.attack.images * calls) == pytest.approx(training / views * 2 / 3)


def test_the_plan_counts_what_waits_for_settings(tmp_path, quick):
    known, what = fake_runs.known(tmp_path), asked()
    plan = planned(what, known, "cpu")
    one = plan.seconds[known.member(named(what, "kd-sgd-paper")).folder].both  # trained alone: neither attacked nor scored
    later = sum(seconds.both for seconds in plan.later.values())
    assert 9 < later / one < 13  # four tuned arms, three twins and their rates, some without a teacher or on fewer images
    assert kinds_of(plan)[-1][:5] == ("settings not known yet", 13, 0, 13, 0)
    assert plan.total > later
    assert [model.folder for model in left_models(plan, what, known)].count(None) == 13


def test_the_plan_goes_by_the_images_that_are_there(tmp_path, quick):
    known, what = fake_runs.known(tmp_path), asked("table1")
    tenth = replace(known, counts=ImageCounts(known.counts.train // 10, known.counts.test // 10))
    some = [
        replace(work, attacks=(), scored_images=0, monitor_images=0)
        for work in standing(what.cells(), known, what.scale).left.values()
    ]
    both = (estimate([], some, [], one, torch.device("cpu"))[0].values() for one in (known, tenth))
    whole, part = (sum(seconds.both for seconds in found) for found in both)
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
