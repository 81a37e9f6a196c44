"""The command `run`: the whole story in a real process, done once, stopped and killed and gone on with."""

import signal
import time
from pathlib import Path

import pytest

import tiny
from cli_runs import OVERRIDES, called, finished, launched, processor_seconds

pytestmark = pytest.mark.usefixtures("same_threads")


def test_the_pipeline_ends_with_a_report(store):
    page = (store / "tiny" / "report.html").read_text()
    assert page.startswith("<!doctype html>") or page.startswith("<!DOCTYPE html>")
    assert "NODE(1)" in page
    assert len(list(store.glob("*/DONE"))) == 4
    assert not list(store.rglob("*.tmp"))
    assert not list(store.rglob("state.safetensors"))


def test_the_same_command_again_does_nothing_and_fast(store):
    before, started = tiny.contents(store), processor_seconds()
    code, out, err = finished("run", "demo", *OVERRIDES, "--store", store)
    assert (code, err) == (0, "")
    assert "Report: " in out
    assert "train teacher" not in out
    assert "attack " not in out
    assert processor_seconds() - started < 5
    assert tiny.contents(store) == before


LONG = ["--teacher.training.epochs", "30", "--until", "teacher"]


def stopped_after(rows: int, root: Path, how: signal.Signals) -> tuple[int, str]:
    """Start a training, send a signal after so many epochs, and return code and stderr."""
    process = launched("run", "demo", *OVERRIDES, *LONG, "--store", root)
    while process.poll() is None:
        logs = list(root.glob("teacher-*/training.jsonl"))
        if logs and len(logs[0].read_text().splitlines()) >= rows:
            process.send_signal(how)
            break
        time.sleep(0.01)
    err = process.communicate(timeout=60)[1]
    return process.returncode, err


def test_a_run_that_was_stopped_and_killed_goes_on_bit_for_bit(tmp_path):
    stopped, unbroken = tmp_path / "stopped", tmp_path / "unbroken"
    code, err = stopped_after(3, stopped, signal.SIGINT)
    assert code == 130
    assert err == "nodestill: stopped. What is finished is kept: the same command goes on from here.\n"
    assert stopped_after(9, stopped, signal.SIGKILL) == (-signal.SIGKILL, "")
    assert not list(stopped.glob("*/DONE"))
    for root in (stopped, unbroken):
        assert finished("run", "demo", *OVERRIDES, *LONG, "--store", root)[0] == 0
    one, other = (next(root.glob("teacher-*/weights.safetensors")) for root in (stopped, unbroken))
    assert one.parent.name == other.parent.name
    assert one.read_bytes() == other.read_bytes()
    assert len(one.with_name("training.jsonl").read_text().splitlines()) == 30


def test_time_that_is_over_is_a_failed_run_that_goes_on(tmp_path, capsys):
    arguments = ["run", "demo", *OVERRIDES, "--until", "teacher", "--store", tmp_path]
    code, _, err = called(capsys, *arguments, "--max-time", "0.001s")
    assert (code, err.count("\n")) == (1, 1)
    assert "time given by --max-time is over" in err
    assert called(capsys, *arguments, "--max-time", "1h")[0] == 0


def test_a_toml_file_is_a_recipe(tmp_path, capsys):
    path = tmp_path / "mine.toml"
    path.write_text('base = "demo"\ncontrols = []\n[teacher]\ndepth = 8\nwidth = 2\n[teacher.training]\nepochs = 1\n')
    assert called(capsys, "run", path, "--until", "teacher", "--store", tmp_path / "runs")[0] == 0
    assert (tmp_path / "runs" / "mine" / "report.html").is_file()


@pytest.mark.slow  # three trainings in two processes each
def test_two_processes_train_all_members_and_the_rest_runs_once(tmp_path):
    shared = ["--devices", "2", "--controls", "stem-only", "--store", tmp_path]
    code, out, _ = finished("run", "demo", *OVERRIDES, *shared)
    assert code == 0
    assert out.count("Report: ") == 1
    assert len(list(tmp_path.glob("*/DONE"))) == 3
    for path in tmp_path.glob("*/robustness.jsonl"):
        assert len(path.read_text().splitlines()) == 4  # two attacks at two radii, once
    assert "train teacher" not in finished("run", "demo", *OVERRIDES, *shared)[1]
