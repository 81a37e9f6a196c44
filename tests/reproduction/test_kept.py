"""Rows that are kept, and what a fresh clone makes of them."""

from pathlib import Path

import pytest

import fake_runs
from fake_grids import all_controls, begin, fresh, kept, worked
from nodestill.errors import DataError
from nodestill.reproduction.known import Known
from nodestill.reproduction.plan import again
from nodestill.reproduction.reproduce import Asked, take_over_rows
from nodestill.reproduction.schedule import standing


@pytest.fixture
def begun(tmp_path) -> tuple[Asked, Known]:
    return begin(tmp_path / "first")


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


def test_rows_that_decide_settings_are_taken_over_and_then_what_hangs_on_them(tmp_path):
    what, known, _ = all_controls(tmp_path / "first")
    kept(what, known, tmp_path / "rows")
    _, now = fresh(what, tmp_path / "rows", tmp_path / "second")
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


def test_what_is_taken_over_is_whole_or_not_there(begun, tmp_path, monkeypatch):
    what, known = begun
    kept(what, known, tmp_path / "rows")
    monkeypatch.setattr("nodestill.reproduction.kept.shutil.copyfile", full_disk)
    again_known = fake_runs.known(tmp_path / "second")
    with pytest.raises(DataError, match="No space left"):
        take_over_rows(what, again_known, tmp_path / "rows")
    monkeypatch.undo()
    taken = take_over_rows(what, again_known, tmp_path / "rows")
    assert len(taken) == len(list((tmp_path / "rows" / what.name).iterdir()))


def full_disk(source: Path, target: Path) -> None:
    raise OSError(28, "No space left on device")
