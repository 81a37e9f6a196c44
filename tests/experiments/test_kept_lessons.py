"""Lessons that are kept: students that see the same views are taught the same, bit for bit, and the teacher is asked once."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tiny
from nodestill.data import Augment, train_batches
from nodestill.errors import TimeUp
from nodestill.experiments import kept_lessons, objective
from nodestill.experiments.environment import environment
from nodestill.experiments.fit import train_member
from nodestill.experiments.loaded import load_run
from nodestill.experiments.members import Member
from nodestill.training.lessons import Lesson, live

TEACHER = tiny.teacher(tiny.SGD, width=2)
EPOCHS, STEPS = tiny.SGD.epochs, 3


@pytest.fixture
def calls(monkeypatch) -> list[int]:
    """The epoch of every batch that a teacher was asked about."""
    asked: list[int] = []

    def counted(teacher) -> Lesson:
        lesson = live(teacher)
        return lambda batch: (asked.append(int(batch.view[0])), lesson(batch))[1]

    monkeypatch.setattr(objective, "live", counted)
    return asked


def student(temperature: float = 3.0, **training) -> Member:
    """A distilled student; settings of its training may differ from those of another."""
    found = tiny.student(replace(tiny.SGD, **training), TEACHER)
    return replace(found, model=replace(found.model, distillation=replace(found.model.distillation, temperature=temperature)))


def trained(root: Path, member: Member, *, keeps: bool = True, watch=tiny.silent) -> dict[str, torch.Tensor]:
    """The weights of a student, trained beside a trained teacher."""
    teacher = tiny.asked(root, TEACHER)
    if not teacher.folder.is_done:
        train_member(teacher, "cpu", 1)
    asked = replace(tiny.asked(root, member, TEACHER, watch), keeps_lessons=keeps)
    train_member(asked, "cpu", 1)
    return load_run(asked.folder, torch.device("cpu")).model.state_dict()


def lessons(root: Path) -> list[Path]:
    return sorted((root / TEACHER.folder / "lessons").glob("*"))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_a_second_student_of_the_same_views_asks_nothing_and_is_taught_the_same(tmp_path, calls):
    alone = trained(tmp_path / "alone", student(10.0), keeps=False)
    assert lessons(tmp_path / "alone") == []
    calls.clear()
    trained(tmp_path, student(3.0))
    assert (len(calls), len(lessons(tmp_path))) == (EPOCHS * STEPS, EPOCHS)
    calls.clear()
    assert same(trained(tmp_path, student(10.0)), alone)
    assert calls == []


def test_what_is_kept_of_a_view_is_what_the_teacher_says_of_the_view_that_the_student_sees(tmp_path):
    member, data = student(), tiny.images()
    trained(tmp_path, member)
    folder = tiny.asked(tmp_path, TEACHER).folder
    teacher = load_run(folder, torch.device("cpu")).model.eval()
    for epoch, path in enumerate(sorted(lessons(tmp_path), key=lambda path: path.stem[-1])):
        said = folder.load_tensors(f"lessons/{path.name}")["logits"]
        for batch in train_batches(data, 16, member.training.augment, seed=member.seed, epoch=epoch):
            with torch.no_grad():
                assert torch.equal(said[batch.index], teacher(batch.images))


@pytest.mark.parametrize("changes", [{"augment": Augment(crop_padding=2)}, {"batch_size": 24}])
def test_other_views_are_asked_about(tmp_path, calls, changes):
    trained(tmp_path, student())
    calls.clear()
    trained(tmp_path, student(**changes))
    assert sorted({*calls}) == list(range(EPOCHS))


def test_another_seed_has_other_views(tmp_path, calls):
    trained(tmp_path, student())
    calls.clear()
    trained(tmp_path, replace(student(), seed=1))
    assert len(calls) == EPOCHS * STEPS


def test_a_teacher_of_other_weights_is_asked_anew(tmp_path, calls):
    trained(tmp_path, student(3.0))
    folder = tiny.asked(tmp_path, TEACHER).folder
    weights = folder.load_tensors("weights.safetensors")
    folder.save_tensors("weights.safetensors", {name: value + (value.is_floating_point()) for name, value in weights.items()})
    calls.clear()
    trained(tmp_path, student(10.0))
    assert len(calls) == EPOCHS * STEPS


@pytest.mark.parametrize("name", ["torch", "device", "threads"])
def test_another_machine_asks_for_itself(tmp_path, calls, monkeypatch, name):
    trained(tmp_path, student(3.0))
    there = {**environment(torch.device("cpu")), name: "another"}
    monkeypatch.setattr(kept_lessons, "environment", lambda device: there)
    calls.clear()
    trained(tmp_path, student(10.0))
    assert len(calls) == EPOCHS * STEPS


def test_a_damaged_file_is_asked_for_again(tmp_path, calls):
    trained(tmp_path, student(3.0))
    lessons(tmp_path)[0].write_bytes(b"damaged")
    calls.clear()
    trained(tmp_path, student(10.0))
    assert len(calls) == STEPS
    assert lessons(tmp_path)[0].stat().st_size > 100


def test_an_epoch_that_was_not_finished_is_not_kept(tmp_path, calls):
    def stop(task: str, done: int, total: int, note: str) -> None:
        if done == STEPS + 1 and "distilled" in task:
            raise TimeUp("stopped by the test")

    whole = trained(tmp_path / "whole", student(), keeps=False)
    with pytest.raises(TimeUp):
        trained(tmp_path, student(), watch=stop)
    assert len(lessons(tmp_path)) == 1
    calls.clear()
    assert same(trained(tmp_path, student()), whole)
    assert (sorted({*calls}), len(lessons(tmp_path))) == ([1, 2], EPOCHS)


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path):
    teacher = tiny.asked(tmp_path, TEACHER)
    train_member(teacher, "cpu", 1)
    (teacher.folder.path / "lessons").write_text("a file where a folder is wanted")
    trained(tmp_path, student())
