"""The loop over a grid, with hands that make results up: order, sharing, failures, what waits for a measurement, rows kept."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

import fake_runs
from nodestill.errors import DataError, SolveError, TimeUp, TrainingError
from nodestill.experiments import Workspace, asked_reproduction, to_plain
from nodestill.experiments.grid import Cell
from nodestill.experiments.grid_records import read_grid
from nodestill.experiments.kept import keep
from nodestill.experiments.reproduce import Asked, again, kinds_of, planned, take_over_rows, write_listing
from nodestill.experiments.schedule import Happened, News, Standing, standing, work_through
from nodestill.experiments.store import DIVERGED
from nodestill.experiments.work import Images, Known, Work, carry_out, left_of, twin


def nothing(*_: object) -> None:
    """Hear no news."""


def asked(part: str = "controls", seeds: int = 1) -> Asked:
    return asked_reproduction(part, "cifar10", "smoke", seeds)


def worked(
    what: Asked, known: Known, failing: tuple[str, ...] = (), on_news=nothing
) -> tuple[dict[str, str], fake_runs.FakeHands]:
    hands = fake_runs.FakeHands(known, failing)
    return work_through(what.cells(), known, what.scale, hands, on_news), hands


@pytest.fixture(scope="module")
def controlled(tmp_path_factory) -> tuple[Asked, Known, fake_runs.FakeHands]:
    """All controls of two seeds, made up."""
    what, known = asked(seeds=2), fake_runs.known(tmp_path_factory.mktemp("store"))
    failed, hands = worked(what, known)
    assert failed == {}
    return what, known, hands


def test_everything_is_done_once_each_after_its_teacher(controlled):
    what, known, hands = controlled  # that a teacher is there is asserted by the hands
    assert set(Counter(hands.order).values()) == {1}
    assert hands.closed
    now = standing(what.cells(), known, what.scale)
    assert (now.left, now.waiting) == ({}, ())
    assert {work.name for work in now.done} == set(hands.order)


def test_the_second_time_nothing_is_given(controlled):
    what, known, _ = controlled
    assert worked(what, known)[1].order == []


def named(what: Asked, name: str, seed: int = 0) -> Cell:
    return next(cell for cell in what.all_cells() if (cell.name, cell.seed) == (name, seed))


def test_a_rate_is_the_one_that_was_best_on_validation(controlled):
    what, known, _ = controlled
    for arm in ("kd-sgd-tuned", "labels-adam-tuned"):
        cell = named(what, arm, seed=1)
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
    assert blocks == {"evaluations": 12, "parameters": 4, "macs": 4}


def test_twins_are_equal_in_what_they_say():
    student = replace(named(asked_reproduction("controls", "cifar10", "cpu", 1), "twin-macs").model, channels=64)
    for evaluations in (9.6, 20.0, 31.0):
        sizes = {way: twin(student, way, evaluations) for way in ("evaluations", "parameters", "macs")}
        weights = {way: one.blocks * one.channels**2 for way, one in sizes.items()}  # of the convolutions, over 9 and layers
        assert sizes["evaluations"].blocks == round(evaluations)
        assert weights["parameters"] == student.channels**2
        assert weights["macs"] == pytest.approx(round(evaluations) * student.channels**2, rel=0.05)


def test_a_failure_stops_only_what_depends_on_it(tmp_path):
    what, known = asked("table2"), fake_runs.known(tmp_path)
    failed, hands = worked(what, known, ("resnet56",))
    assert list(failed.values()) == ["it was to fail"]
    left = standing(what.cells(), known, what.scale).left
    assert len(left) == 4  # the teacher, and its student at each of three temperatures
    assert set(Counter(hands.order).values()) == {1}
    assert worked(what, known)[0] == {}  # the same command tries again
    assert standing(what.cells(), known, what.scale).left == {}


def test_what_waits_for_a_failed_measurement_is_named(tmp_path):
    what, known = asked(), fake_runs.known(tmp_path)
    worked(what, known, ("node1-kd",))
    now = standing(what.cells(), known, what.scale)
    assert {"twin-evaluations", "twin-parameters", "twin-macs", "kd-sgd-tuned", "kd-adam-tuned"} == {
        cell.name for cell in now.waiting
    }


def test_hands_that_say_done_and_did_nothing_are_not_asked_for_ever(tmp_path):
    class Idle(fake_runs.FakeHands):
        def done(self, work: Work) -> list[News]:
            return [News(work.name, Happened.DONE)]

    what, known = asked("table3"), fake_runs.known(tmp_path)
    failed = work_through(what.cells(), known, what.scale, Idle(known), nothing)
    assert [why.partition(",")[0] for why in failed.values()] == ["it was reported as done"]


def test_time_that_is_over_stops_the_hands(tmp_path):
    what, known = asked("table1"), fake_runs.known(tmp_path)
    hands, heard = fake_runs.FakeHands(known, size=1), []

    def on_news(news: object, now: Standing, running: set[str]) -> None:
        heard.append(len(now.done))
        if len(now.done) == 2:
            raise TimeUp("over")

    with pytest.raises(TimeUp):
        work_through(what.cells(), known, what.scale, hands, on_news)
    assert hands.closed
    assert heard == sorted(heard)
    assert len(standing(what.cells(), known, what.scale).done) == 2


# Rows that are kept, and a fresh clone


def kept(what: Asked, known: Known, target: Path, weights: tuple[str, ...] = ()) -> None:
    """Keep the rows of all finished works, and the weights of those whose names hold a word."""
    for work in standing(what.cells(), known, what.scale).done:
        keep(known.store.folder(work.name), target / what.name / work.name, weights=any(word in work.name for word in weights))


@pytest.fixture
def begun(tmp_path) -> tuple[Asked, Known]:
    """Table 2 of which the students of ResNet-20 are not trained; all teachers are."""
    what, known = asked("table2"), fake_runs.known(tmp_path / "first")
    for work in list(standing(what.cells(), known, what.scale).left.values()):
        if work.teacher is None or "resnet20" not in work.teacher.folder:
            fake_runs.finish(work, known)
    assert len(standing(what.cells(), known, what.scale).left) == 3
    return what, known


def fresh(what: Asked, rows: Path, root: Path) -> tuple[Known, Standing]:
    """A store of its own that took over what is kept."""
    known = fake_runs.known(root)
    take_over_rows(what, known, rows)
    return known, standing(what.cells(), known, what.scale)


def test_kept_rows_count_as_done_and_only_the_teacher_that_is_needed_is_trained_again(begun, tmp_path):
    what, known = begun
    kept(what, known, tmp_path / "rows")
    again_known, now = fresh(what, tmp_path / "rows", tmp_path / "second")
    assert len(now.left) == 4
    assert [name for name in now.left if name.startswith("teacher")] == [n for n in now.left if "resnet20" in n]
    assert len(again(now, again_known)) == 1
    assert "is trained again: its rows were kept, its weights were not" in again(now, again_known)[0]
    failed, hands = worked(what, again_known)
    assert failed == {}
    assert sorted(hands.order) == sorted(now.left)
    assert not list(again_known.store.root.glob("*resnet20*/ROWS"))


def test_with_the_weights_of_teachers_no_teacher_is_trained_again(begun, tmp_path):
    what, known = begun
    kept(what, known, tmp_path / "rows", weights=("teacher",))
    again_known, now = fresh(what, tmp_path / "rows", tmp_path / "second")
    assert len(now.left) == 3
    assert again(now, again_known) == []
    assert not any(name.startswith("teacher") for name in now.left)


def test_rows_that_decide_settings_are_taken_over_and_then_what_hangs_on_them(controlled, tmp_path):
    what, known, _ = controlled
    kept(what, known, tmp_path)
    _, now = fresh(what, tmp_path, tmp_path / "second")
    assert (now.left, now.waiting) == ({}, ())


def test_a_folder_in_which_work_has_begun_is_left_alone(begun, tmp_path):
    what, known = begun
    kept(what, known, tmp_path / "rows")
    name = next(work.name for work in standing(what.cells(), known, what.scale).done)
    other = fake_runs.known(tmp_path / "second")
    other.store.folder(name).write("recipe.json", {"mine": True})
    assert name not in take_over_rows(what, other, tmp_path / "rows")
    assert other.store.folder(name).read("recipe.json") == {"mine": True}


def test_rows_of_another_training_do_not_stay_beside_new_weights(begun, tmp_path):
    what, known = begun
    kept(what, known, tmp_path / "rows")
    other, _ = fresh(what, tmp_path / "rows", tmp_path / "second")
    folder = next(f for f in map(other.store.folder, [p.name for p in other.store.root.iterdir()]) if f.is_measured)
    folder.forget_rows()
    assert {path.name for path in folder.path.iterdir()} == {"recipe.json", "environment.json"}


def test_the_plan_counts_what_is_done_and_what_is_left(begun):
    what, known = begun
    plan = planned(what, known, "cpu")
    assert all(plan.seconds[work.name] == 0 for work in plan.standing.done)
    assert all(0 < plan.seconds[name] < 600 for name in plan.standing.left)
    assert plan.later == 0
    assert [(kind, left) for kind, _, _, left, _ in kinds_of(plan)] == [("teachers", "0"), ("students", "3")]


def test_the_plan_counts_what_waits_for_settings(tmp_path):
    plan = planned(asked(), fake_runs.known(tmp_path), "cpu")
    assert plan.later > 0
    assert kinds_of(plan)[-1][:4] == ("settings not known yet", "7", "0", "7")  # four tuned arms, three twins
    assert plan.total > plan.later


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


# Rates that diverge, and seeds that another command made


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


def test_what_is_taken_over_is_whole_or_not_there(begun, tmp_path, monkeypatch):
    what, known = begun
    kept(what, known, tmp_path / "rows")
    monkeypatch.setattr("nodestill.experiments.kept.shutil.copyfile", full_disk)
    again_known = fake_runs.known(tmp_path / "second")
    with pytest.raises(DataError, match="No space left"):
        take_over_rows(what, again_known, tmp_path / "rows")
    monkeypatch.undo()
    taken = take_over_rows(what, again_known, tmp_path / "rows")
    assert len(taken) == len(list((tmp_path / "rows" / what.name).iterdir()))


def full_disk(source: Path, target: Path) -> None:
    raise OSError(28, "No space left on device")
