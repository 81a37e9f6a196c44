"""Scripts of benchmarks/: how they end, and that they count the arithmetic which is done."""

import importlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from torch import nn

import tiny
from nodestill.models import Stem
from nodestill.ode import GradientMode, Method, Solver
from nodestill.training import supervised
from scripts import ROOT


@pytest.fixture
def script(monkeypatch):
    """What imports a script of benchmarks/ by its name."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module


def test_a_reader_that_stops_early_ends_a_script_without_a_word():
    command = [sys.executable, "benchmarks/record.py"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_what_the_pages_say_of_the_solver_is_in_its_rows(script):
    evidence = script("evidence")
    assert evidence.PAGE.read_text() == evidence.page()
    assert evidence.README.read_text() == evidence.with_speeds(evidence.README.read_text())


def test_the_short_table_takes_the_best_that_errs_no_more_for_certain(script):
    def row(contender, seconds, error, megabytes=100.0):
        errors = {f"{what}_error": error for what in ("state", "input_gradient", "weight_gradient")}
        times = {"forward_seconds": seconds, "training_seconds": 2 * seconds, "megabytes": megabytes}
        settings = {"channels": 64, "horizon": 1.0, "norm": "none", "batch": 128, "threads": 1, "machine": "A B, 2 cores"}
        return settings | times | errors | {"contender": contender, "doubt": [0.1, 0.1]}

    replayed = row("ours dopri5 0.001, float32, direct, replayed", 0.1, 0.0)
    del replayed["state_error"]
    rows = [
        row("torchdiffeq", 12.0, 1.0, megabytes=900.0),
        row("ours a, float32, direct", 4.0, 0.5),
        row("ours b, float32, direct", 2.0, 1.05),  # within the doubt alone
        row("ours c, compiled, float32, recompute", 3.0, 0.5, megabytes=150.0),
        replayed,
    ]
    lines = script("targets").short_table(rows).splitlines()
    assert lines[2:] == ["| A B | C = 64 | bfloat16 | – | – | – | – |", "| A B | C = 64 | float32 | 4.0× | 3.0× | 4.0× | 1/6 |"]


def counting(model: nn.Module) -> list[int]:
    """A list that grows by the multiply-accumulates of each layer that a training calls."""
    done: list[int] = []

    def count(layer, _inputs, output):
        if layer.training:
            done.append(output.numel() * layer.weight[0].numel())

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    return done


def test_small_images_and_coarse_steps_are_counted_as_they_are_trained(script):
    fits, arithmetic = script("time_to_accuracy"), script("arithmetic")
    plan = replace(tiny.SGD, epochs=4, sides=(4, 6))
    solver = Solver(Method.MIDPOINT, steps=2, gradient=GradientMode.DIRECT)
    small = {"stem": Stem.SMOOTH, "distillation": None, "training": plan, "coarse_epochs": 3}
    recipe, images = replace(tiny.recipe().student, solver=solver, **small), tiny.images()
    model, by_epoch = fits.built(recipe, images, seed=0), []
    expected = fits.flop_by_epoch(model, recipe, images)
    done = counting(model)

    def each(record) -> None:
        by_epoch.append(6 * sum(done))
        done.clear()

    fits.fit(model, supervised, images, recipe, 0, each)
    assert by_epoch == expected
    assert len(set(expected)) == 4
    assert arithmetic.whole_epochs(recipe, (3, 8, 8), 3) == pytest.approx(sum(expected) / expected[-1])
    assert fits.affordable(model, recipe, images, sum(expected) + 2 * expected[-1]).training.epochs == 6


def test_the_record_counts_epochs_of_small_images_as_what_they_are(script, tmp_path):
    account, kept = script("record").account, tmp_path / "cifar10-faster"
    shutil.copytree(ROOT / "results" / "cifar10-faster", kept)
    whole = account(kept)["flop"]
    path = next(kept.glob("student-*/recipe.json"))
    recipe, cost = json.loads(path.read_text()), json.loads(path.with_name("evaluation.json").read_text())["cost"]
    recipe["model"]["training"]["sides"] = [16] * 5
    path.write_text(json.dumps(recipe))
    spared = 6 * recipe["train_images"] * cost["macs"] * 5 * 3 / 4  # a quarter of the pixels is left, or less: odd sides
    assert spared < whole - account(kept)["flop"] < 1.1 * spared


def test_no_script_has_the_name_of_what_tests_import():
    """Both folders are on the path of imports at once, and whoever comes first would hide the other."""
    scripts = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    assert not scripts & {path.stem for path in (ROOT / "tests").iterdir()}
