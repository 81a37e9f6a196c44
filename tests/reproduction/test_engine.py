"""Processes that train: one is killed in the middle and the grid goes on to the same numbers, whatever was lost."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nodestill.data import Dataset, count_images, identify
from nodestill.errors import TimeUp
from nodestill.experiments import Store, Workspace
from nodestill.experiments.processes import silent
from nodestill.reproduction.engine import LocalHands, _Worker, attempt
from nodestill.reproduction.grid import Cell, Grid
from nodestill.reproduction.known import Known
from nodestill.reproduction.scales import ScaleName, scale_named
from nodestill.reproduction.schedule import Happened, News, Standing, standing, work_through
from nodestill.reproduction.work import Images, carry_out

EPOCHS = 12  # long enough to be killed in the middle, after a few are saved
PARENT = """
import subprocess, sys, time
from pathlib import Path
from nodestill.data import Dataset, identify, count_images
from nodestill.experiments import Store, Workspace
from nodestill.reproduction.engine import _Worker
from nodestill.reproduction.known import Known

if __name__ == "__main__":
    digits, store = Dataset.DIGITS, Store(Path(sys.argv[1]))
    known = Known(digits, identify(digits, None), count_images(digits, None), store)
    worker = _Worker(Workspace(store, accelerator="cpu"), known, 1)
    nowhere = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    holder = subprocess.Popen(["sleep", "60"], pass_fds=[worker.pipe.fileno()], **nowhere)
    print(worker.process.pid, holder.pid, flush=True)
    time.sleep(60)
"""


def cells() -> list[Cell]:
    """A teacher, whose training takes a while, and a student of it."""
    cell = Grid(Dataset.CIFAR10, scale_named(ScaleName.SMOKE), 0).distilled(20, 3.0)
    teacher = replace(cell.teacher, model=replace(cell.teacher.model, training=_longer(cell.teacher)), attack=None)
    return [teacher, replace(cell, teacher=teacher, attack=None, scored=False)]


def _longer(cell: Cell):
    return replace(cell.model.training, epochs=EPOCHS)


def known_in(root: Path) -> Known:
    return Known(Dataset.DIGITS, identify(Dataset.DIGITS, None), count_images(Dataset.DIGITS, None), Store(root))


def hands(known: Known, jobs: int = 1) -> LocalHands:
    return LocalHands(jobs, Workspace(known.store, accelerator="cpu"), known)


def worked(known: Known, what: list[Cell], using: LocalHands, on_news=lambda *_: None) -> dict[str, str]:
    return work_through(what, known, scale_named(ScaleName.SMOKE), using, on_news)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Known:
    """The same two models, trained in this process, with the one thread that a worker has: the bits depend on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    known = known_in(tmp_path_factory.mktemp("unbroken"))
    images, workspace = Images(known.dataset, None), Workspace(known.store, accelerator="cpu")
    for cell in cells():
        for work in standing([cell], known, scale_named(ScaleName.SMOKE)).left.values():
            carry_out(work, workspace, known, images)
    torch.set_num_threads(threads)
    return known


def folder_of(known: Known, cell: Cell):
    return known.store.folder(known.member(cell).folder)


def test_a_killed_process_is_a_failed_model_and_the_next_command_goes_on_to_the_same_weights(tmp_path, unbroken):
    known, what = known_in(tmp_path), cells()
    using, epochs_saved = hands(known), []

    def kill(news: News | None, now: Standing, running: set[str]) -> None:
        saved = len(folder_of(known, what[0]).rows("training.jsonl"))
        if news is not None and news.happened is Happened.PROGRESS and saved >= 3 and not epochs_saved:
            epochs_saved.append(saved)
            os.kill(using._workers[0].process.pid, signal.SIGKILL)

    failed = worked(known, what, using, kill)
    assert list(failed) == [known.member(what[0]).folder]
    assert "exit code -9" in next(iter(failed.values()))
    assert not folder_of(known, what[1]).path.exists()  # nobody taught it
    assert 3 <= epochs_saved[0] < EPOCHS
    first = folder_of(known, what[0]).rows("training.jsonl")[:3]
    assert worked(known, what, hands(known)) == {}
    assert folder_of(known, what[0]).rows("training.jsonl")[:3] == first  # went on, did not begin again
    for cell in what:
        ours, theirs = (folder_of(each, cell).path / "weights.safetensors" for each in (known, unbroken))
        assert ours.read_bytes() == theirs.read_bytes()


def test_one_process_that_fails_does_not_stop_another(tmp_path):
    known, (teacher, student) = known_in(tmp_path), cells()
    plan = replace(teacher.model.training, lr=1e30, epochs=1)
    bad = replace(teacher, name="diverges", model=replace(teacher.model, training=plan))
    failed = worked(known, [bad, replace(student, teacher=bad, name="of bad"), teacher], hands(known, jobs=2))
    assert list(failed) == [known.member(bad).folder]
    assert "TrainingError: Training diverged" in failed[known.member(bad).folder]
    assert folder_of(known, teacher).is_done


def test_time_that_is_over_ends_every_process(tmp_path):
    known, what = known_in(tmp_path), cells()
    using = hands(known)

    def over(news: News | None, now: Standing, running: set[str]) -> None:
        if news is not None:
            raise TimeUp("over")

    with pytest.raises(TimeUp):
        worked(known, what, using, over)
    assert using._workers == []


def test_whatever_goes_wrong_is_told_in_one_line(tmp_path):
    known, what = known_in(tmp_path), cells()
    work = standing(what[:1], known, scale_named(ScaleName.SMOKE)).left[known.member(what[0]).folder]

    def broken(*_: object) -> None:
        raise ZeroDivisionError("two\nlines")

    workspace = Workspace(known.store, accelerator="cpu", watch=broken)
    news = attempt(work, workspace, known, Images(known.dataset, None))
    assert (news.happened, news.note) == (Happened.FAILED, "ZeroDivisionError: two lines")
    assert attempt(work, replace(workspace, watch=silent), known, Images(known.dataset, None)).happened is Happened.DONE


def test_a_process_ends_soon_after_its_parent_was_killed(tmp_path):
    """Even one that does not speak, and whose pipe somebody else still holds open."""
    (tmp_path / "parent.py").write_text(PARENT)
    command = [sys.executable, str(tmp_path / "parent.py"), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as parent:
        worker, holder = map(int, parent.stdout.readline().split())
        time.sleep(1)
        os.kill(worker, 0)  # it is there
        parent.kill()
        try:
            assert parent.communicate(timeout=30) == ("", "")  # until the worker has ended
        finally:
            os.kill(holder, signal.SIGKILL)


def test_a_process_that_nobody_hears_any_more_ends_quietly(tmp_path):
    known, what = known_in(tmp_path), cells()
    worker = _Worker(Workspace(known.store, accelerator="cpu"), known, 1)
    worker.pipe.send(standing(what[:1], known, scale_named(ScaleName.SMOKE)).left[known.member(what[0]).folder])
    assert worker.pipe.recv().happened is Happened.PROGRESS
    worker.pipe.close()
    worker.process.join(60)
    assert worker.process.exitcode == 0
