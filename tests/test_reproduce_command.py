"""The command `reproduce`: what it says before it starts, and every mistake in one sentence; slow: the whole grid on digits."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import fake_runs
from cli_runs import launched
from fake_grids import begin
from nodestill.cli import main
from nodestill.cli.reproducing import _require_nothing
from nodestill.errors import TrainingError
from nodestill.reproduction import asked_reproduction
from nodestill.reproduction.reproduce import write_listing
from nodestill.reproduction.schedule import standing
from nodestill.terminal import console


@pytest.fixture(autouse=True)
def wide_tables(monkeypatch):
    """Have tables not folded, however wide the terminal of the tests is."""
    monkeypatch.setattr(console, "width", 160)


@pytest.fixture(autouse=True)
def same_threads():
    """Undo --threads."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def called(capsys, *arguments: object) -> tuple[int, str, str]:
    """Return code, stdout and stderr of the command, in this process."""
    with pytest.raises(SystemExit) as left:
        main(["reproduce", *[str(argument) for argument in arguments]])
    out, err = capsys.readouterr()
    return int(left.value.code or 0), out, err


def test_a_dry_run_says_what_there_is_to_do_and_does_nothing(tmp_path, capsys):
    code, out, err = called(capsys, "all", "--scale", "smoke", "--dry-run", "--store", tmp_path, "--jobs", "2")
    assert (code, err) == (0, "")
    said = " ".join(out.split())
    assert "all of cifar10 at scale smoke" in said
    assert "Images: digits of scikit-learn, 1,437 to train on, 360 to test." in said
    assert "Seeds: 2 of the cells that are compared most closely, 1 of the others." in said
    assert "│ teacher.width" in out  # beside the paper's 16
    assert "with 2 at a time, by a calibration on this machine" in said
    assert out.count("│ training ") == 13  # twelve by name
    assert "and 81 more" in said
    assert said.rindex("To do: 93 models to train, about") > said.rindex("To train")  # the last that is said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "`nodestill reproduce` needs PART: table1, table2, table3, figure1, controls, claims or all."),
        (
            ["table1", "table2"],
            "`nodestill reproduce` takes one PART, and 'table2' is too many. Give the command once for each.",
        ),
        (["table7"], "What to reproduce cannot be 'table7'. Did you mean 'table"),
        (["all", "--scale", "huge"], "--scale cannot be 'huge'"),
        (["all", "--dataset", "digits", "--scale", "smoke"], "--dataset must be cifar10 or svhn, the paper's, got 'digits'"),
        (["all", "--dataset", "cifar100"], "--dataset must be cifar10 or svhn, the paper's, got 'cifar100'"),
        (
            ["all", "--scale", "smoke", "--data", "/nope"],
            "--data is not for --scale smoke, whose images are the bundled digits",
        ),
        (["table3", "--dataset", "svhn", "--scale", "smoke"], "The paper's Table 3 is of CIFAR-10 alone"),
        (["all", "--scale", "smoke", "--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["all", "--scale", "smoke", "--seeds", "1.5"], "--seeds must be a whole number, got '1.5'"),
        (["all", "--scale", "smoke", "--jobs", "1.5"], "--jobs must be a whole number, got '1.5'"),
        (["all", "--scale", "smoke", "--engine", "spark"], "--engine must be local or ray, got 'spark'"),
        (["all", "--scale", "smoke", "--jobs", "0"], "--jobs must be at least 1, got 0"),
        (["all", "--scale", "smoke", "--threads", "0"], "--threads must be at least 1, got 0"),
        (["all", "--scale", "smoke", "--rows", "no"], "--rows must be a folder that holds reproduce-cifar10-smoke"),
        (["all", "--scale", "smoke", "--max-time", "soon"], "--max-time must be a time such as 90s"),
    ],
)
def test_a_mistake_is_one_sentence_and_code_2(arguments, said, capsys, tmp_path):
    code, _, err = called(capsys, *arguments, "--store", tmp_path)
    assert code == 2
    assert err.count("\n") == 1
    assert said in err


@pytest.mark.parametrize("dry", [["--dry-run"], []])
@pytest.mark.parametrize("place", ["file", "file/runs", "link"])
def test_a_store_that_can_be_no_folder_is_refused_before_anything_is_computed(place, dry, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("nodestill.reproduction.plan.planned", None)
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    code, out, err = called(capsys, "table1", "--scale", "smoke", "--store", tmp_path / place, *dry)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"{tmp_path / place.partition('/')[0]} is no folder. Choose another --store." in err


def finished(root: Path, part: str) -> None:
    """Make up all models of a part."""
    asked, known = asked_reproduction(part, "cifar10", "smoke", 2), fake_runs.known(root)
    while left := standing(asked.cells(), known, asked.scale).left:
        for work in left.values():
            fake_runs.finish(work, known)
    write_listing(asked, known, {})


def test_a_finished_part_is_printed_at_once_with_the_papers_numbers(tmp_path, capsys):
    finished(tmp_path, "table2")
    code, out, err = called(capsys, "table2", "--scale", "smoke", "--store", tmp_path)
    assert (code, err) == (0, "")
    said = " ".join(out.split())
    assert "Table 2: NODE(1) by teacher and temperature" in said
    assert "88.03" in said
    assert said.count("Intervals, 95 %, are of the finite test images") == 1
    assert "Table 1" not in said
    assert f"Report: {tmp_path / 'reproduce-cifar10-smoke' / 'report.html'}" in out
    assert (tmp_path / "reproduce-cifar10-smoke" / "report.md").is_file()
    assert "│ teacher.width" in out
    again = called(capsys, "table2", "--scale", "smoke", "--store", tmp_path, "--dry-run")[1]
    assert "teacher.width" not in again
    assert f"23 settings unlike the paper's, listed in {tmp_path / 'reproduce-cifar10-smoke' / 'report.html'}." in again
    assert "teacher.width" in (tmp_path / "reproduce-cifar10-smoke" / "report.html").read_text()


def test_a_dry_run_names_what_is_only_to_be_scored(tmp_path, capsys):
    finished(tmp_path, "table2")
    best = next(path for path in tmp_path.glob("*/solvers.jsonl") if path.stat().st_size)
    best.unlink()
    code, out, err = called(capsys, "table2", "--scale", "smoke", "--store", tmp_path, "--dry-run")
    assert (code, err) == (0, "")
    assert "To do: 1 model to score only, about" in out
    assert "at a time" not in out
    (row,) = [line for line in out.splitlines() if best.parent.name in line]
    assert [cell.strip() for cell in row.split("│")[1:3]] == ["scores under other solvers", "NODE(1), ResNet-44, T = 10"]


def test_the_report_of_a_grid_is_written_again_by_its_name(tmp_path, capsys):
    finished(tmp_path, "table1")
    grid = tmp_path / "reproduce-cifar10-smoke"
    with pytest.raises(SystemExit) as left:
        main(["report", grid.name, "--store", str(tmp_path)])
    out, err = capsys.readouterr()
    assert (left.value.code or 0, err) == (0, "")
    assert f"Report: {grid / 'report.html'}" in out
    assert "Table 1: without distillation" in out
    with pytest.raises(SystemExit):
        main(["report", grid.name, "--store", str(tmp_path), "--out", str(tmp_path / "there.html")])
    assert (tmp_path / "there.html").read_text() == (grid / "report.html").read_text()
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main(["report", "reproduce-svhn-smoke", "--store", str(tmp_path)])
    assert "It holds: reproduce-cifar10-smoke." in capsys.readouterr().err
    assert left.value.code != 0


def test_one_model_that_failed_is_no_plural(tmp_path):
    what, known = begin(tmp_path)
    now = standing(what.cells(), known, what.scale)
    with pytest.raises(TrainingError, match=r"^1 model failed, with 2 waiting for what failed; .* First: .*: it was to fail"):
        _require_nothing(now, {next(iter(now.left)): "it was to fail"})


def test_rows_of_a_fresh_clone_are_taken_over_and_named(tmp_path, capsys):
    finished(tmp_path / "first", "table1")
    rows = tmp_path / "rows" / "reproduce-cifar10-smoke"
    rows.mkdir(parents=True)
    for folder in (tmp_path / "first").glob("*-????????"):
        (rows / folder.name).mkdir()
        for file in (
            "recipe.json",
            "environment.json",
            "training.jsonl",
            "evaluation.json",
            "robustness.jsonl",
            "solvers.jsonl",
        ):
            if (folder / file).exists():
                (rows / folder.name / file).write_bytes((folder / file).read_bytes())
    arguments = ["table1", "--scale", "smoke", "--store", tmp_path / "second", "--rows", tmp_path / "rows", "--dry-run"]
    code, out, err = called(capsys, *arguments)
    assert (code, err) == (0, "")
    said = " ".join(out.split())
    assert "Taken over from the rows in" in said
    assert "reproduce-cifar10-smoke: 13 models." in said
    assert "Nothing is left to do, all is done: 8 models." in said


def test_a_grid_that_is_terminated_ends_as_by_ctrl_c_with_its_processes(tmp_path):
    process = launched("reproduce", "table3", "--scale", "smoke", "--jobs", "1", "--store", tmp_path)
    while not list(tmp_path.glob("student-*/environment.json")) and process.poll() is None:
        time.sleep(0.02)
    process.terminate()
    process.terminate()  # as `timeout` does
    _, err = process.communicate(timeout=60)  # until every process has ended that could still say something
    assert process.returncode == 130
    assert err == "nodestill: stopped. What is finished is kept: the same command goes on from here.\n"
    assert (tmp_path / "reproduce-cifar10-smoke" / "grid.json").exists()


@pytest.mark.slow
def test_the_whole_grid_on_digits(tmp_path, capsys):
    """Stopped by --max-time on the way; every cell ends with rows, and every claim is judged."""
    arguments = ["all", "--scale", "smoke", "--store", tmp_path, "--jobs", "2", "--seeds", "2"]
    code, _, err = called(capsys, *arguments, "--max-time", "20s")
    assert (code, err.count("\n")) == (1, 1)
    assert "time given by --max-time is over" in err
    begun, started = len(list(tmp_path.glob("*/DONE"))), time.monotonic()
    code, _, err = called(capsys, *arguments)
    assert (code, err) == (0, "")
    assert time.monotonic() - started < 1200
    assert begun > 0
    listing = json.loads((tmp_path / "reproduce-cifar10-smoke" / "grid.json").read_text())
    assert all(cell["folder"] and (tmp_path / cell["folder"] / "DONE").exists() for cell in listing["cells"])
    assert "not measured" not in (tmp_path / "reproduce-cifar10-smoke" / "report.md").read_text().partition("## What is not")[0]
    before = len(list(tmp_path.glob("*/DONE")))
    assert called(capsys, *arguments)[0] == 0
    assert len(list(tmp_path.glob("*/DONE"))) == before


def numbers(root: Path) -> dict[str, tuple[bytes, dict, list[dict]]]:
    """Weights, clean accuracy and attacked rows of every finished model, without what a clock says."""
    found = {}
    for folder in (path.parent for path in root.glob("*/DONE")):
        clean = json.loads((folder / "evaluation.json").read_text())["clean"]
        lines = (folder / "robustness.jsonl").read_text().splitlines() if (folder / "robustness.jsonl").exists() else []
        rows = [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]
        found[folder.name] = ((folder / "weights.safetensors").read_bytes(), clean, rows)
    return found


@pytest.mark.slow  # a part of a grid, twice
def test_a_grid_whose_every_process_is_killed_goes_on_to_the_same_numbers(tmp_path):
    def command(store: str) -> list[str]:
        return [sys.executable, "-m", "nodestill", "reproduce", "figure1", "--scale", "smoke", "--jobs", "2", "--store", store]

    subprocess.run(command("whole"), cwd=tmp_path, check=True, capture_output=True)
    with subprocess.Popen(command("broken"), cwd=tmp_path, start_new_session=True, stdout=subprocess.DEVNULL) as broken:
        while len(list((tmp_path / "broken").glob("*/DONE"))) < 3 and broken.poll() is None:
            time.sleep(0.05)
        os.killpg(broken.pid, signal.SIGKILL)
    finished = numbers(tmp_path / "broken")
    assert 3 <= len(finished) < len(numbers(tmp_path / "whole"))
    again = {name: (tmp_path / "broken" / name / "weights.safetensors").stat().st_mtime_ns for name in finished}
    subprocess.run(command("broken"), cwd=tmp_path, check=True, capture_output=True)
    assert numbers(tmp_path / "broken") == numbers(tmp_path / "whole")
    assert again == {name: (tmp_path / "broken" / name / "weights.safetensors").stat().st_mtime_ns for name in finished}
