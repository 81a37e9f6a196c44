"""The command: the whole story in a real process, stopped and killed and gone on with; and every mistake one sentence."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

import tiny
from nodestill import __version__
from nodestill.cli import main
from nodestill.errors import RecipeError
from nodestill.experiments import Store

OVERRIDES = [*tiny.OVERRIDES.split(), "--name", "tiny", "--threads", "1"]
COMMAND = [sys.executable, "-W", "error", "-m", "nodestill"]


@pytest.fixture(autouse=True)
def same_threads():
    """Undo --threads."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def launched(*arguments: object, **environment: str) -> subprocess.Popen:
    """Start the command in a process of its own that Ctrl-C reaches, as from a shell."""
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def finished(*arguments: object, **environment: str) -> tuple[int, str, str]:
    """Return code, stdout and stderr of the command."""
    process = launched(*arguments, **environment)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def called(capsys, *arguments: object) -> tuple[int, str, str]:
    """The same, in this process."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return int(left.value.code or 0), out, err


def processor_seconds() -> float:
    """Time that processes which have ended spent computing: what they take on an idle machine, however busy this one is."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """The store of a tiny experiment, made by the command in a process of its own."""
    root, started = tmp_path_factory.mktemp("store"), processor_seconds()
    code, out, err = finished("run", "demo", *OVERRIDES, "--store", root)
    assert (code, err) == (0, "")
    assert f"Report: {root / 'tiny' / 'report.html'}\n" in out
    assert processor_seconds() - started < 20
    return root


@pytest.fixture
def copied(store, tmp_path) -> Path:
    """A copy that may be damaged."""
    return shutil.copytree(store, tmp_path / "copied")


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


# What the other commands say


def test_alone_it_shows_what_it_can(capsys):
    code, out, err = called(capsys)
    assert (code, err) == (0, "")
    assert all(name in out for name in ("demo", "run", "recipes", "attack", "report", "predict", "data"))
    assert called(capsys, "--help")[1] == out
    assert called(capsys, "--version")[1].strip() == __version__


@pytest.mark.parametrize(
    "name", ["demo", "run", "recipes", "attack", "solvers", "report", "reproduce", "predict", "data verify"]
)
def test_every_command_has_help_and_can_be_debugged(name, capsys):
    code, out, err = called(capsys, *name.split(), "--help")
    assert (code, err) == (0, "")
    assert "--debug" in out


def test_recipes_are_listed_and_shown(capsys):
    assert "cifar10-smoke" in called(capsys, "recipes")[1]
    assert '"channels": 512' in called(capsys, "recipes", "--show", "paper-cifar10-node1")[1]


def test_data_are_summarised(capsys):
    code, out, _ = called(capsys, "data", "verify", "digits")
    assert code == 0
    assert "1437" in out
    assert "360" in out


def test_an_attack_prints_its_rows_and_makes_them_once(copied, capsys):
    arguments = ["attack", "tiny", "--eps", "0,16", "--attacks", "pgd", "--images", "30", "--store", copied]
    code, out, err = called(capsys, *arguments)
    assert (code, err) == (0, "")
    assert [line.split()[1] for line in out.splitlines() if "pgd" in line]
    before = tiny.contents(copied)
    again = called(capsys, *arguments)[1]
    assert again in out  # the same table, without the progress before it
    assert tiny.contents(copied) == before


ROUNDED = """
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(192, 10)

    def forward(self, x):
        return self.head((8 * x).round().flatten(1))
"""


def test_an_attack_without_gradients_says_so(tmp_path, capsys):
    (tmp_path / "rounded.py").write_text(ROUNDED)
    arguments = ["attack", tmp_path / "rounded.py:Net", "--dataset", "digits", "--eps", "0,8", "--images", "20"]
    code, out, err = called(capsys, *arguments, "--store", tmp_path)
    assert (code, err) == (0, "")
    assert "20 of 20 images had a step without gradient" in out
    assert "upper bounds" in out
    sound = called(capsys, *arguments, "--attacks", "mi-fgsm,square", "--protocol", "sound", "--store", tmp_path)[1]
    assert "had a step without gradient" in sound
    assert "upper bounds" not in sound
    assert "Square" in sound  # what each attack added


def test_a_model_is_scored_under_other_solvers(copied, capsys):
    code, out, err = called(capsys, "solvers", "tiny", "--images", "40", "--store", copied)
    assert (code, err) == (0, "")
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    rows = [line for line in lines if line[2]]  # a long name goes on in the next line
    kept = Store(copied).folder(next(copied.glob("student-*-node1-kd-*")).name).rows("solvers.jsonl")
    assert [row[2] for row in rows] == [f"{row['accuracy']:.2%}" for row in kept]
    assert [row[5] for row in rows] == [f"{row['evaluations']:.1f}" for row in kept]
    said = " ".join(" ".join(line[1] for line in lines).split())
    assert said.startswith("euler, 2 steps euler, 8 steps rk4, 2 steps dopri5, tolerance 1e-05 none, t1 = 0 euler, 2 steps")


def test_images_are_classified_and_their_names_printed_as_they_are(store, tmp_path, capsys):
    path = tmp_path / "[bold]x[" / "a].png"
    path.parent.mkdir()
    Image.new("L", (8, 8)).save(path)
    code, out, err = called(capsys, "predict", "tiny:teacher", path, "--store", store)
    assert (code, err) == (0, "")
    assert str(path) in "".join(line.split("│")[1].strip() for line in out.splitlines() if "│" in line)


def test_a_report_goes_where_it_is_told(store, tmp_path, capsys):
    out = tmp_path / "a-long-name-of-a-folder-so-that-the-line-is-wider-than-a-terminal" / "mine.html"
    code, said, err = called(capsys, "report", "tiny", "--store", store, "--out", out)
    assert (code, err) == (0, "")
    assert f"Report: {out}\n" in said
    assert out.read_text() == (store / "tiny" / "report.html").read_text()


def test_a_toml_file_is_a_recipe(tmp_path, capsys):
    path = tmp_path / "mine.toml"
    path.write_text('base = "demo"\ncontrols = []\n[teacher]\ndepth = 8\nwidth = 2\n[teacher.training]\nepochs = 1\n')
    assert called(capsys, "run", path, "--until", "teacher", "--store", tmp_path / "runs")[0] == 0
    assert (tmp_path / "runs" / "mine" / "report.html").is_file()


# Mistakes


def tokens(text: str, **places: Path) -> list[str]:
    return [token.format(**places) if token != "''" else "" for token in text.split()]


MISTAKES = {
    "trian": "trian",
    "run": "recipe",
    "run dmo": "Did you mean 'demo'",
    "run demo --student.chanels 4": "Did you mean 'channels'",
    "run demo --stroe x": "no field 'stroe'",
    "run demo extra": "stands alone",
    "run demo --seed": "--seed needs a value",
    "run demo --student.channels many": "must be a whole number, got 'many'",
    "run demo --student.distillation.kd_weight 9": "kd_weight must lie in [0, 1]",
    "run demo --student.training.epochs 0": "epochs must be at least 1",
    "run demo --student.solver.steps 3": "steps = 3 contradicts dopri5",
    "run demo --student.solver.method rk4": "rk4 takes a fixed number of steps",
    "run demo --robustness.eps-255 300": "from 0 to 255",
    "run demo --robustness.attacks fgsm": "cannot be 'fgsm'",
    "run demo --seed 99999999999999999999": "seed must fit into 64 bits",
    "run demo --teacher.width 3": "teacher.width must be even",
    "run demo --until never": "--until cannot be 'never'",
    "run demo --max-time soon": "--max-time must be a time such as",
    "run demo --max-time 0": "--max-time",
    "run demo --max-time nanh": "--max-time",
    "run demo --device tpu": "--device cannot be 'tpu'",
    "run demo --threads 0": "--threads must be at least 1",
    "run demo --devices two": "two",
    "run demo --devices 0 --store {tmp}/s": "0 device(s)",
    "run demo --store /dev/null/x": "Cannot write /dev/null/x",
    "run demo --store {tmp}/text.png": "Cannot write",
    "demo --out /dev/null/x": "Cannot write",
    "run cifar10-smoke --data {tmp}/none": "cannot be read",
    "run cifar10-smoke --data {tmp}/cut --store {tmp}/s": "not a readable parquet file",
    "run demo --dataset folder": "Pass --data DIR",
    "run {tmp}/none.toml": "No such file",
    "run {tmp}/bad.toml": "is not TOML",
    "run {tmp}/baseless.toml": "must name the recipe that it changes",
    "recipes --show dmo": "Did you mean 'demo'",
    "recipes --shwo demo": "--shwo",
    "attack": "model",
    "attack nobody --store {store}": "holds no run 'nobody'",
    "attack tiny:nobody --store {store}": "no finished nobody model",
    "attack tiny --eps 300 --store {store}": "from 0 to 255",
    "attack tiny --eps eight --store {store}": "--eps must be a whole number",
    "attack tiny --eps '' --store {store}": "--eps must be",
    "attack tiny --eps 8,4 --store {store}": "increasing",
    "attack tiny --attacks '' --store {store}": "--attacks must name at least one",
    "attack tiny --attacks fgsn --store {store}": "--attacks cannot be 'fgsn'",
    "attack tiny --protocol mine --store {store}": "--protocol cannot be 'mine'",
    "attack tiny --images 0 --store {store}": "--images must be at least 1",
    "attack tiny --batch-size 0 --store {store}": "--batch-size must be at least 1",
    "solvers nobody --store {store}": "holds no run 'nobody'",
    "solvers tiny:teacher --store {store}": "solves no equation",
    "solvers tiny:stem-only --store {store}": "solves no equation",
    "solvers tiny --images 0 --store {store}": "number of images must be at least 1",
    "predict tiny --store {store}": "at least one image file",
    "predict tiny {tmp}/none.png --store {store}": "none.png cannot be read",
    "predict tiny {tmp} --store {store}": "cannot be read",
    "predict tiny {tmp}/text.png --store {store}": "not a readable image",
    "predict tiny {tmp}/wide.png --store {store}": "8x9 pixels, expected 8x8",
    "predict nobody {tmp}/wide.png --store {store}": "holds no run",
    "report --store {tmp}/none": "holds no experiment",
    "report --store {tmp}/text.png": "holds no experiment",
    "report nobody --store {store}": "It holds: tiny",
    "report tiny other --out {tmp}/x.html --store {store}": "--out names one file, but there are 2",
    "report tiny --out {tmp}/text.png/x.html --store {store}": "Cannot write",
    "data verify digit": "Did you mean 'digits'",
    "data verify folder": "Pass --data DIR",
}


@pytest.fixture(scope="module")
def places(tmp_path_factory, store) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bad")
    (root / "text.png").write_text("no image")
    Image.new("RGB", (9, 8)).save(root / "wide.png")
    (root / "bad.toml").write_text("base = [")
    (root / "baseless.toml").write_text("seed = 1")
    (root / "cut" / "cifar10").mkdir(parents=True)
    for stem in ("train", "test"):
        (root / "cut" / "cifar10" / f"{stem}.parquet").write_bytes(b"PAR1 cut")
    return {"tmp": root, "store": store}


def one_sentence(err: str) -> str:
    assert err.startswith("nodestill: ")
    assert err.count("\n") == 1
    assert err.endswith(".\n") or err.endswith("?\n") or err.endswith("'.\n")
    assert "Traceback" not in err
    assert "internal error" not in err
    return err


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence_and_code_2(mistake, places, capsys):
    code, _, err = called(capsys, *tokens(mistake, **places))
    assert code == 2
    assert MISTAKES[mistake] in one_sentence(err)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_one_sentence(tmp_path, capsys):
    code, _, err = called(capsys, "run", "demo", *OVERRIDES, "--device", "cuda", "--store", tmp_path)
    assert code == 2
    assert "'cuda'" in one_sentence(err)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ("--teacher.training.lr 1e30 --teacher.training.schedule steps", "Training diverged"),
        ("--student.solver.method dopri5 --student.solver.steps none --student.solver.max_steps 1", "Raise max_steps"),
    ],
)
def test_a_run_that_fails_is_one_sentence_and_code_1(tmp_path, capsys, changes, said):
    hard = ["--student.solver.rtol", "1e-12", "--student.solver.atol", "1e-12"]
    arguments = [*OVERRIDES, *hard, *changes.split(), "--controls", "undistilled"]
    code, _, err = called(capsys, "run", "demo", *arguments, "--store", tmp_path)
    assert code == 1
    assert said in one_sentence(err)


@pytest.mark.parametrize(
    ("name", "content", "command"),
    [
        ("student-*-kd-*/weights.safetensors", None, "attack tiny --eps 1"),
        ("student-*-kd-*/weights.safetensors", "", "predict tiny {tmp}/wide.png"),
        ("student-*-kd-*/recipe.json", None, "attack tiny --eps 1"),
        ("student-*-kd-*/recipe.json", "{}", "attack tiny --eps 1"),
        ("student-*-kd-*/recipe.json", None, "predict tiny {tmp}/wide.png"),
        ("student-*-kd-*/robustness.jsonl", None, "attack tiny --eps 1"),
        ("student-*-kd-*/robustness.jsonl", "[]", "run"),
        ("student-*-kd-*/evaluation.json", None, "report tiny"),
        ("student-*-kd-*/training.jsonl", None, "report tiny"),
        ("tiny/experiment.json", None, "report tiny"),
        ("tiny/experiment.json", "{}", "attack tiny"),
    ],
)
def test_a_cut_file_is_one_sentence(copied, places, capsys, name, content, command):
    path = next(copied.glob(name))
    path.write_bytes(path.read_bytes()[:-9] if content is None else content.encode())
    words = ["run", "demo", *OVERRIDES] if command == "run" else tokens(command, **places)
    code, _, err = called(capsys, *words, "--store", copied)
    assert code == 2
    assert f"{path.name} is damaged" in one_sentence(err)


def test_images_of_other_classes_are_one_sentence(tmp_path, capsys):
    for root, classes in (("a", "xy"), ("b", "xz")):
        for stem in ("train", "test"):
            for kind in classes:
                (tmp_path / root / stem / kind).mkdir(parents=True)
                Image.new("RGB", (8, 8), (ord(kind), 0, 0)).save(tmp_path / root / stem / kind / "0.png")
    settings = [*OVERRIDES, "--dataset", "folder", "--controls", "undistilled", "--store", tmp_path / "runs"]
    code, _, err = called(capsys, "run", "demo", *settings, "--until", "student", "--data", tmp_path / "a")
    assert (code, err) == (0, "")
    attack = ["attack", "tiny", "--eps", "1", "--store", tmp_path / "runs", "--data"]
    assert called(capsys, *attack, tmp_path / "a")[0] == 0
    code, _, err = called(capsys, *attack, tmp_path / "b")
    assert code == 2
    assert "knows 2 classes (x, y, ...)" in one_sentence(err)


def test_debug_shows_the_traceback():
    with pytest.raises(RecipeError):
        main(["run", "dmo", "--debug"])


def test_a_mistake_in_a_real_process(tmp_path):
    code, out, err = finished("run", "demo", "--student.chanels", "4")
    assert (code, out) == (2, "")
    assert "Did you mean 'channels'" in one_sentence(err)


def test_data_that_cannot_be_downloaded_are_one_sentence(tmp_path):
    code, _, err = finished("data", "verify", "cifar10", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    assert code == 2
    assert "could not download it" in one_sentence(err)
    assert "--data DIR" in err


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


@pytest.mark.slow
def test_a_process_that_fails_is_one_sentence_and_code_1(tmp_path):
    wild = ["--teacher.training.lr", "1e30", "--teacher.training.epochs", "3", "--until", "teacher"]
    code, _, err = finished("run", "demo", *OVERRIDES, *wild, "--devices", "2", "--store", tmp_path)
    assert code == 1
    assert "Traceback" not in err
    last = err.splitlines()[-1]
    assert last.startswith("nodestill: A process of the training failed: ")
    assert "diverged" in last


def test_an_output_that_nobody_reads_is_no_traceback():
    process = launched("recipes", "--show", "demo")
    process.stdout.close()
    assert process.wait(60) == 1
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()


def test_a_terminal_without_unicode_is_no_traceback(store):
    code, out, err = finished("report", "tiny", "--store", store, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (code, err) == (0, "")
    assert "NODE(1)" in out
