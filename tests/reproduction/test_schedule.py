"""The loop over a grid, with hands that make results up: order, sharing, settings that hang on results, failures."""

from collections import Counter
from dataclasses import replace

import pytest

import fake_runs
from fake_grids import asked, nothing, worked
from nodestill.errors import TimeUp
from nodestill.reproduction.schedule import Happened, News, Standing, standing, work_through
from nodestill.reproduction.work import Work


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
    waiting = {cell.name for cell in now.waiting if cell.parts}
    assert waiting == {"twin-evaluations", "twin-parameters", "twin-macs", "kd-sgd-tuned", "kd-adam-tuned"}


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


def test_a_small_test_set_is_scored_whole(tmp_path):
    """Fewer test images than are to be scored: a model that is scored on all there are lacks nothing."""
    what, known = asked("table1"), fake_runs.known(tmp_path)
    few = replace(known, counts=known.counts._replace(test=7))
    work = next(work for work in standing(what.cells(), few, what.scale).left.values() if work.scored_images > 7)
    fake_runs.finish(work, few)
    folder = known.store.folder(work.name)
    folder.write_rows("solvers.jsonl", [{**row, "images": 7} for row in folder.rows("solvers.jsonl")])
    assert work.name in {one.name for one in standing(what.cells(), few, what.scale).done}
    assert work.name in standing(what.cells(), known, what.scale).left
