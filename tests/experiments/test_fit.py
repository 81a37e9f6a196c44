"""Training one member: stopped anywhere and resumed it is, bit for bit, the training that was never stopped."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tiny
from nodestill.data import channel_statistics
from nodestill.errors import DataError, InputError, TimeUp, TrainingError
from nodestill.experiments.fit import device_of, train_member
from nodestill.experiments.loaded import load_run
from nodestill.experiments.recipe import Role
from nodestill.models import Norm, Normalize, Stem, Whitening
from nodestill.ode import Method, Solver
from nodestill.precision import Precision
from nodestill.training import Schedule

STEPS = 9  # of three epochs with three batches each


def stop_at(step: int):
    """A watcher that stops a training after so many optimiser steps."""

    def watch(task: str, done: int, total: int, note: str) -> None:
        assert total == STEPS
        if done == step:
            raise TimeUp("stopped by the test")

    return watch


def without_times(folder) -> dict[str, object]:
    """All that a run recorded but how long it took."""
    records = {path.name: path.read_bytes() for path in folder.path.iterdir() if path.name != "environment.json"}
    rows = [json.loads(line) for line in records.pop("training.jsonl").splitlines()]
    evaluation = json.loads(records.pop("evaluation.json"))
    return {**records, "rows": [row | {"seconds": 0} for row in rows], "evaluation": evaluation | {"seconds": 0}}


def trained(root: Path, member, teacher=None, stops: tuple[int, ...] = ()) -> dict[str, object]:
    if teacher is not None:
        train_member(tiny.asked(root, teacher), "cpu", 1)
    for step in stops:
        with pytest.raises(TimeUp):
            train_member(tiny.asked(root, member, teacher, stop_at(step)), "cpu", 1)
        torch.rand(step)  # no global random state takes part
    asked = tiny.asked(root, member, teacher)
    assert not asked.folder.is_done
    train_member(asked, "cpu", 1)
    assert asked.folder.is_done
    return without_times(asked.folder)


@pytest.mark.parametrize(
    "plan", [tiny.SGD, tiny.ADAM, tiny.MUON, replace(tiny.SGD, schedule=Schedule.TRIANGLE, milestones=(0.3,))]
)
@pytest.mark.parametrize("stops", [(5,), (1, 4, 8), (3,), (6, 9)])
def test_a_stopped_residual_network_goes_on_bit_for_bit(tmp_path, plan, stops):
    member = tiny.teacher(plan)
    unbroken, resumed = trained(tmp_path / "a", member), trained(tmp_path / "b", member, stops=stops)
    assert unbroken == resumed
    assert {"weights.safetensors", "recipe.json", "DONE", "rows", "evaluation"} == set(resumed)


@pytest.mark.parametrize("plan", [tiny.SGD, tiny.ADAM])
def test_a_stopped_student_goes_on_bit_for_bit(tmp_path, plan):
    teacher = tiny.teacher(tiny.SGD, width=4)
    member = tiny.student(plan, teacher)
    unbroken, resumed = trained(tmp_path / "a", member, teacher), trained(tmp_path / "b", member, teacher, (2, 7))
    assert unbroken == resumed
    assert unbroken["evaluation"]["clean"]["agreement"] is not None
    assert unbroken["evaluation"]["evaluations"]["min"] >= 7  # one step of dopri5
    assert set(unbroken["rows"][0]["parts"]) == {"cross_entropy", "kl", "accuracy", "agreement"}
    assert set(unbroken["rows"][0]["measured"]) == {"accuracy", "loss", "evaluations"}


@pytest.mark.parametrize("changes", [{}, {"twin": True}, {"t1": 0.0}])
def test_a_student_of_several_equations_goes_on_bit_for_bit_and_is_read_back(tmp_path, changes):
    member = tiny.student(tiny.MUON, None)
    several = {"stem": Stem.WHITENED, "further": (6,), "norm": Norm.NONE, "solver": Solver(Method.MIDPOINT, steps=1)}
    member = replace(member, model=replace(member.model, **(several | changes)))
    unbroken, resumed = trained(tmp_path / "a", member), trained(tmp_path / "b", member, stops=(2, 7))
    assert unbroken == resumed
    asked = tiny.asked(tmp_path / "a", member)
    images = asked.test_set.images.float() / 255
    again = load_run(asked.folder, torch.device("cpu")).model(images).argmax(1)
    assert unbroken["evaluation"]["clean"]["accuracy"] == float((again == asked.test_set.labels).double().mean())


def test_a_solver_that_is_refined_goes_on_bit_for_bit(tmp_path):
    teacher = tiny.teacher(tiny.SGD, width=4)
    member = tiny.student(tiny.SGD, teacher)
    member = replace(member, model=replace(member.model, solver=Solver(Method.MIDPOINT, steps=2), coarse_epochs=2))
    unbroken, resumed = trained(tmp_path / "a", member, teacher), trained(tmp_path / "b", member, teacher, (4, 7))
    assert unbroken == resumed
    assert [row["measured"]["evaluations"] for row in unbroken["rows"]] == [4, 4, 4]
    losses = [[row["loss"] for row in unbroken["rows"]]]
    for number, steps in enumerate((1, 2)):
        other = replace(member, model=replace(member.model, solver=Solver(Method.MIDPOINT, steps=steps), coarse_epochs=0))
        losses.append([row["loss"] for row in trained(tmp_path / str(number), other, teacher)["rows"]])
    coarse_then_fine, coarse, fine = losses
    assert coarse_then_fine[:2] == coarse[:2] != fine[:2]
    assert coarse_then_fine[2] not in (coarse[2], fine[2])
    assert unbroken["evaluation"]["evaluations"]["mean"] == 4
    assert load_run(tiny.asked(tmp_path / "a", member, teacher).folder, torch.device("cpu")).model.solver.steps == 2


@pytest.mark.parametrize(("side", "said"), [(9, "at most the 8 pixels"), (1, "cannot take")])
def test_sizes_of_images_that_do_not_fit_are_refused_before_the_first_epoch(tmp_path, side, said):
    member = tiny.teacher(tiny.SGD)
    model = tiny.student(tiny.SGD, member).model
    model = replace(model, distillation=None, stem=Stem.SMOOTH, training=replace(tiny.SGD, sides=(side,)))
    with pytest.raises(InputError, match=said):
        train_member(tiny.asked(tmp_path, replace(member, role=Role.UNDISTILLED, model=model)), "cpu", 1)
    assert not any(path.read_text() for path in tmp_path.rglob("training.jsonl"))


def test_bfloat16_goes_on_bit_for_bit(tmp_path):
    member = tiny.teacher(replace(tiny.SGD, precision=Precision.BFLOAT16), width=4)
    single = trained(tmp_path / "a", tiny.teacher(tiny.SGD, width=4))
    unbroken, resumed = trained(tmp_path / "b", member), trained(tmp_path / "c", member, stops=(4,))
    assert unbroken == resumed
    assert unbroken["weights.safetensors"] != single["weights.safetensors"]


def test_the_seed_changes_the_weights(tmp_path):
    member = tiny.teacher(tiny.SGD, width=2)
    one, other = trained(tmp_path / "a", member), trained(tmp_path / "b", replace(member, seed=1))
    assert one["weights.safetensors"] != other["weights.safetensors"]


def test_an_epoch_that_was_logged_but_not_saved_is_logged_again(tmp_path, monkeypatch):
    """Killed between the two writes after an epoch."""
    member = tiny.teacher(tiny.SGD, width=2)
    unbroken = trained(tmp_path / "a", member)
    asked = tiny.asked(tmp_path / "b", member)
    with monkeypatch.context() as patch:
        patch.setattr(type(asked.folder), "save_state", lambda *_: (_ for _ in ()).throw(TimeUp("killed")))
        with pytest.raises(TimeUp, match="killed"):
            train_member(asked, "cpu", 1)
    assert len(asked.folder.rows("training.jsonl")) == 1
    train_member(asked, "cpu", 1)
    assert without_times(asked.folder) == unbroken
    assert [row["epoch"] for row in unbroken["rows"]] == [1, 2, 3]


def test_a_training_that_was_killed_before_its_evaluation_only_evaluates(tmp_path, monkeypatch):
    member = tiny.teacher(tiny.SGD, width=2)
    unbroken, asked = trained(tmp_path / "a", member), tiny.asked(tmp_path / "b", member)
    with monkeypatch.context() as patch:
        patch.setattr("nodestill.experiments.fit.score", lambda *_: (_ for _ in ()).throw(TimeUp("killed")))
        with pytest.raises(TimeUp):
            train_member(asked, "cpu", 1)
    assert not asked.folder.is_done
    told = []
    train_member(replace(asked, watch=lambda *seen: told.append(seen)), "cpu", 1)
    assert told == []
    assert without_times(asked.folder) == unbroken


@pytest.mark.parametrize(("stop", "first"), [(2, 1), (5, 4), (8, 7)])
def test_progress_is_told_from_where_it_goes_on(tmp_path, stop, first):
    """From the start of the epoch that was stopped: no finished epoch is made again."""
    member, told = tiny.teacher(tiny.SGD, width=2), []
    with pytest.raises(TimeUp):
        train_member(tiny.asked(tmp_path, member, watch=stop_at(stop)), "cpu", 1)
    train_member(tiny.asked(tmp_path, member, watch=lambda *seen: told.append(seen)), "cpu", 1)
    assert [done for _, done, _, _ in told] == list(range(first, STEPS + 1))
    assert {(task, total) for task, _, total, _ in told} == {("train teacher ResNet-8", STEPS)}
    assert told[0][3].startswith("loss ")
    assert told[1][3] == ""


@pytest.mark.parametrize("name", ["state.safetensors", "training.jsonl"])
def test_a_cut_file_stops_a_resume_with_one_clear_error(tmp_path, name):
    member = tiny.teacher(tiny.SGD, width=2)
    with pytest.raises(TimeUp):
        train_member(tiny.asked(tmp_path, member, watch=stop_at(5)), "cpu", 1)
    path = tiny.asked(tmp_path, member).folder.path / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=f"{name} is damaged"):
        train_member(tiny.asked(tmp_path, member), "cpu", 1)


def test_a_teacher_that_is_not_finished_is_refused(tmp_path):
    teacher = tiny.teacher(tiny.SGD, width=2)
    with pytest.raises(DataError, match="holds no finished model"):
        train_member(tiny.asked(tmp_path, tiny.student(tiny.SGD, teacher), teacher), "cpu", 1)


def test_a_diverging_training_keeps_what_was_before(tmp_path):
    member = tiny.teacher(replace(tiny.SGD, lr=1e30), width=2)
    asked = tiny.asked(tmp_path, member)
    with pytest.raises(TrainingError, match="diverged"):
        train_member(asked, "cpu", 1)
    assert asked.folder.read("recipe.json")["role"] == "teacher"
    assert not asked.folder.is_done


def test_what_is_recorded_is_what_was_asked_and_what_was_measured(tmp_path):
    member = tiny.teacher(tiny.SGD, width=2)
    asked = tiny.asked(tmp_path, member)
    train_member(asked, "cpu", 1)
    recipe = asked.folder.read("recipe.json")
    assert (recipe["class_names"], recipe["image_size"], recipe["train_images"]) == (["a", "b", "c"], [8, 8], 48)
    model, names, again = load_run(asked.folder, device_of("cpu"))
    assert (names, again) == (("a", "b", "c"), recipe)
    images = asked.test_set
    with torch.no_grad():
        right = model(images.images.float() / 255).argmax(1) == images.labels
    evaluation = asked.folder.read("evaluation.json")
    assert evaluation["clean"]["accuracy"] == pytest.approx(float(right.double().mean()))
    assert evaluation["clean"]["images"] == 30
    assert evaluation["evaluations"] is None
    environment = asked.folder.read("environment.json")
    assert environment["torch"] == torch.__version__
    assert environment["threads"] == torch.get_num_threads()
    assert not (asked.folder.path / "state.safetensors").exists()


def test_a_whitening_layer_learns_from_the_training_images_and_is_kept(tmp_path):
    member = tiny.student(tiny.SGD, None)
    member = replace(member, model=replace(member.model, stem=Stem.WHITENED))
    asked = tiny.asked(tmp_path, member)
    train_member(asked, "cpu", 1)
    kept = load_run(asked.folder, torch.device("cpu")).model
    (layer,) = (module for module in kept.modules() if isinstance(module, Whitening))
    mean, std = channel_statistics(asked.train_set)
    expected = Whitening()
    expected.learn(Normalize(mean, std)(asked.train_set.images.float() / 255))
    torch.testing.assert_close(layer.weight, expected.weight.detach())


@pytest.mark.slow  # two processes are started three times
def test_a_training_in_two_processes_is_stopped_by_its_watcher_and_goes_on(tmp_path):
    member = tiny.teacher(replace(tiny.MUON, epochs=100), width=2)  # so many that it lasts while its processes are ended
    whole, broken = tiny.asked(tmp_path / "whole", member), tiny.asked(tmp_path / "broken", member)
    train_member(whole, "cpu", 2)

    def watch(task: str, done: int, total: int, note: str) -> None:
        if done == 5:
            raise TimeUp("stopped by the test")

    with pytest.raises(TimeUp):
        train_member(replace(broken, watch=watch), "cpu", 2)
    assert not broken.folder.is_done
    with pytest.raises(InputError, match=r"begun in 2 process\(es\) and would go on in 1"):
        train_member(broken, "cpu", 1)
    train_member(broken, "cpu", 2)
    assert without_times(whole.folder) == without_times(broken.folder)
