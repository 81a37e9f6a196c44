"""The command: every mistake and every failure is one sentence and a code, never a traceback unless it is asked for."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from cli_runs import OVERRIDES, called, finished
from nodestill.cli import main
from nodestill.errors import RecipeError

pytestmark = pytest.mark.usefixtures("same_threads")


def tokens(text: str, **places: Path) -> list[str]:
    return [token.format(**places) if token != "''" else "" for token in text.split()]


MISTAKES = {
    "trian": "trian",
    "run": "`nodestill run` needs RECIPE: Name of a recipe, or a .toml file",
    "run demo --store": "--store needs a value: Folder that keeps runs",
    "demo twice": "`nodestill demo` takes options alone, and 'twice' is none. `nodestill demo --help` lists them.",
    "recipes demo": "`nodestill recipes` takes options alone, and 'demo' is none",
    "run dmo": "Did you mean 'demo'",
    "run demo --student.chanels 4": "Did you mean 'channels'",
    "run demo --datase digits": "Did you mean 'dataset'?",
    "run demo --stroe x": "no option --stroe. Did you mean --store?",
    "run demo extra": "stands alone",
    "run demo --seed": "--seed needs a value",
    "run demo --student.channels many": "must be a whole number, got 'many'",
    "run demo --student.distillation.kd_weight 9": "kd_weight must lie in [0, 1]",
    "run demo --student.training.epochs 0": "epochs must be at least 1",
    "run demo --student.solver.steps 3": "steps = 3 contradicts dopri5",
    "run demo --student.solver.method rk4": "rk4 takes a whole number of steps >= 1, got steps = None",
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
    "run demo --devices two": "--devices must be a whole number, got 'two'",
    "run demo --devices 1.5": "--devices must be a whole number, got '1.5'",
    "run demo --threads=1.5": "--threads must be a whole number, got '1.5'",
    "run demo --seed 0.5": "must be a whole number, got '0.5'",
    "demo --threads 0.6": "--threads must be a whole number, got '0.6'",
    "run demo --devices 0 --store {tmp}/s": "--devices must be at least 1, got 0",
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
    "attack": "`nodestill attack` needs MODEL: A run folder in the store",
    "attack one two": "`nodestill attack` takes one MODEL, and 'two' is too many. Give the command once for each.",
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
    "attack tiny --images 10.5 --store {store}": "--images must be a whole number, got '10.5'",
    "attack tiny --batch-size 9.5 --store {store}": "--batch-size must be a whole number, got '9.5'",
    "audit tiny --eps 1.5 --store {store}": "--eps must be a whole number, got '1.5'",
    "audit tiny --seed 0.5 --store {store}": "--seed must be a whole number, got '0.5'",
    "audit tiny --batch-size 1.5 --store {store}": "--batch-size must be a whole number, got '1.5'",
    "solvers tiny --images 10.5 --store {store}": "--images must be a whole number, got '10.5'",
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
    "data verify": "`nodestill data verify` needs DATASET: digits, cifar10, svhn or folder.",
    "data verify digits svhn": "`nodestill data verify` takes one DATASET, and 'svhn' is too many",
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


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--devicez", "--devices"),
        ("--max-tim", "--max-time?"),
        ("--unti", "--until?"),
        ("--theads", "--threads?"),
        ("--debgu", "--debug?"),
    ],
)
def test_a_mistyped_option_of_run_is_told_from_a_field(capsys, typed, meant):
    code, _, err = called(capsys, "run", "demo", typed, "2")
    assert code == 2
    assert f"There is no option {typed}. Did you mean " in one_sentence(err)
    assert meant in err


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


@pytest.mark.slow
def test_a_process_that_fails_is_one_sentence_and_code_1(tmp_path):
    wild = ["--teacher.training.lr", "1e30", "--teacher.training.epochs", "3", "--until", "teacher"]
    code, _, err = finished("run", "demo", *OVERRIDES, *wild, "--devices", "2", "--store", tmp_path)
    assert code == 1
    assert "Traceback" not in err
    last = err.splitlines()[-1]
    assert last.startswith("nodestill: A process of the training failed: ")
    assert "diverged" in last
