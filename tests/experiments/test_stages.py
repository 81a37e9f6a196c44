"""Whole experiments: what is done is not done again, what is shared is trained once, what was stopped goes on."""

from dataclasses import replace

import pytest
import torch

import tiny
from nodestill.attacks import AttackName
from nodestill.data import DataIdentity
from nodestill.errors import DataError, SolveError, TimeUp
from nodestill.experiments import RobustnessRecipe, Stage, Store, Workspace, attack_run, run, stages
from nodestill.experiments.fit import train_member
from nodestill.models import NeuralODEClassifier


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The tiny experiment, run once."""
    root = tmp_path_factory.mktemp("store")
    assert run(tiny.recipe(), Workspace(Store(root), accelerator="cpu"))
    return root


def nothing(*_: object) -> None:
    raise AssertionError("something was done")


def test_all_members_are_trained_and_attacked(finished):
    listing = Store(finished).folder("tiny").read("experiment.json")
    assert len(listing["members"]) == 4
    for name in listing["members"]:
        folder = Store(finished).folder(name)
        assert folder.is_done
        rows = folder.rows("robustness.jsonl")
        assert [(row["attack"], row["eps_255"]) for row in rows] == [("pgd", 0), ("pgd", 4)]
        assert all(row["data"] == "digits of scikit-learn" and row["images"] == 10 for row in rows)
        assert [len(pictures) for pictures in folder.read("gallery.json").values()] == [8]
    assert not list(finished.rglob("*.tmp"))


def test_the_second_time_nothing_is_loaded_trained_or_written(finished, monkeypatch):
    before = tiny.contents(finished)
    for name in ("load_image_set", "train_member", "load_run", "device_of"):
        monkeypatch.setattr(stages, name, nothing)
    assert run(tiny.recipe(), Workspace(Store(finished), accelerator="cpu")) is False
    assert tiny.contents(finished) == before


def test_how_long_each_command_worked_is_kept(tmp_path):
    workspace, recipe = Workspace(Store(tmp_path), accelerator="cpu"), tiny.recipe(controls=())

    def stop(*_: object) -> None:
        raise TimeUp("stopped by the test")

    with pytest.raises(TimeUp):
        run(recipe, replace(workspace, watch=stop))
    run(recipe, workspace, Stage.STUDENT)
    run(recipe, workspace, Stage.STUDENT)  # nothing to do
    rows = Store(tmp_path).folder("tiny").rows("commands.jsonl")
    assert [(row["until"], row["finished"]) for row in rows] == [("robustness", False), ("student", True)]
    assert all(0 < row["seconds"] < 600 for row in rows)


@pytest.mark.parametrize("changes", [{"about": "other"}, {"monitor_images": 0}])
def test_what_does_not_matter_is_no_reason_to_train_again(finished, monkeypatch, changes):
    monkeypatch.setattr(stages, "train_member", nothing)
    assert run(tiny.recipe(**changes, name="same"), Workspace(Store(finished), accelerator="cpu")) is False


def test_another_student_shares_the_teacher(finished):
    student = replace(tiny.recipe().student, channels=3)
    other = tiny.recipe(name="other", student=student, controls=())
    before = {path.name for path in finished.iterdir()}
    teacher = next(name for name in before if name.startswith("teacher"))
    kept = tiny.contents(finished / teacher)
    assert run(other, Workspace(Store(finished), accelerator="cpu"), Stage.STUDENT)
    new = {path.name for path in finished.iterdir()} - before
    assert {name.rpartition("-")[0] for name in new} == {"", "student-digits-node1-kd"}
    assert Store(finished).folder("other").read("experiment.json")["members"][0] == teacher
    assert tiny.contents(finished / teacher) == kept


def test_each_stage_ends_where_it_says(tmp_path):
    workspace, recipe = Workspace(Store(tmp_path), accelerator="cpu"), tiny.recipe(controls=())
    for until, done, attacked in ((Stage.TEACHER, 1, 0), (Stage.STUDENT, 2, 0), (Stage.ROBUSTNESS, 2, 2)):
        assert run(recipe, workspace, until)
        assert run(recipe, workspace, until) is False
        assert len(list(tmp_path.glob("*/DONE"))) == done
        assert len(list(tmp_path.glob("*/robustness.jsonl"))) == attacked


def test_a_stopped_experiment_goes_on_to_the_same_rows(finished, tmp_path):
    """Stopped again and again, each time a little later, until it is through."""
    left = stops = 0

    def watch(task: str, done: int, total: int, note: str) -> None:
        nonlocal left
        left -= 1
        assert 0 < done <= total
        if left < 0:
            raise TimeUp("stopped by the test")

    while True:
        left = 3 * stops
        try:
            run(tiny.recipe(), Workspace(Store(tmp_path), accelerator="cpu", watch=watch))
            break
        except TimeUp:
            stops += 1
    assert 4 < stops < 40
    for name in Store(finished).folder("tiny").read("experiment.json")["members"]:
        one, other = Store(finished).folder(name), Store(tmp_path).folder(name)
        for file in ("weights.safetensors", "recipe.json", "gallery.json"):
            assert (one.path / file).read_bytes() == (other.path / file).read_bytes()
        rows = [[row | {"seconds": 0} for row in folder.rows("robustness.jsonl")] for folder in (one, other)]
        assert rows[0] == rows[1]


def attacked(root, asked: RobustnessRecipe, role: str = "student-digits-node1-kd", **changes) -> bool:
    store = Store(root)
    folder = store.folder(next(path.name for path in root.iterdir() if path.name.startswith(role)))
    workspace = Workspace(store, accelerator="cpu")
    arguments = {"identity": DataIdentity("more", "0"), "images": lambda: tiny.images(12, classes=10)} | changes
    return attack_run(folder, asked, workspace, **arguments)


def rows_of(root, count: int, role: str = "student-digits-node1-kd") -> list[dict]:
    folder = Store(root).folder(next(path.name for path in root.iterdir() if path.name.startswith(role)))
    return folder.rows("robustness.jsonl")[-count:]


def named(classes: int = 10):
    data = tiny.images(12, classes=10)
    return replace(data, class_names=tuple("0123456789"))


def test_more_radii_of_the_same_attack_are_other_rows_and_the_same_is_none(finished):
    asked = RobustnessRecipe(attacks=(AttackName.MI_FGSM, AttackName.PGD), eps_255=(2, 8), images=5, batch_size=3)
    assert attacked(finished, asked, images=named)
    rows = rows_of(finished, 4)
    assert [(row["attack"], row["eps_255"], row["images"]) for row in rows] == [
        ("mi-fgsm", 2, 5),
        ("mi-fgsm", 8, 5),
        ("pgd", 2, 5),
        ("pgd", 8, 5),
    ]
    assert len({row["recipe"] for row in rows}) == 1
    assert attacked(finished, asked, images=nothing) is False
    assert attacked(finished, replace(asked, seed=1), images=named)  # another seed is another measurement
    assert attacked(finished, asked, identity=DataIdentity("less", "1"), images=named)  # other data too


def test_images_of_other_classes_are_refused(finished):
    with pytest.raises(DataError, match=r"knows 10 classes \(0, 1, 2, ...\), but made by a test has 3 \(a, b, c, ...\)"):
        attacked(finished, RobustnessRecipe(seed=9), images=lambda: tiny.images(6))


def test_a_model_that_is_not_finished_is_not_attacked(tmp_path):
    (tmp_path / "teacher-x").mkdir()
    with pytest.raises(DataError, match="holds no finished model"):
        attacked(tmp_path, RobustnessRecipe(), role="teacher", images=named)


def test_a_failed_solve_counts_as_wrong_and_stops_nothing(finished, monkeypatch):
    """One step is not enough, so that every solve fails: no image is right, none is an exception."""
    plain = stages.load_run

    def hopeless(folder, device):
        loaded = plain(folder, device)
        assert isinstance(loaded.model, NeuralODEClassifier)
        with torch.no_grad():
            next(loaded.model.dynamics.parameters()).fill_(float("inf"))
        return loaded

    monkeypatch.setattr(stages, "load_run", hopeless)
    asked = RobustnessRecipe(attacks=(AttackName.PGD,), eps_255=(0, 3), images=6, batch_size=6, seed=5)
    assert attacked(finished, asked, images=named)
    for row in rows_of(finished, 2):
        assert (row["failed_images"], row["correct"], row["robust"], row["clean_accuracy"]) == (6, 0, 0, 0.0)


def test_a_failed_solve_in_training_is_told(tmp_path):
    teacher = tiny.teacher(tiny.SGD, width=2)
    train_member(tiny.asked(tmp_path, teacher), "cpu", 1)
    member = tiny.student(tiny.SGD, teacher)
    solver = replace(member.model.solver, max_steps=1, rtol=1e-9, atol=1e-9)
    member = replace(member, model=replace(member.model, solver=solver))
    with pytest.raises(SolveError, match="Raise max_steps"):
        train_member(tiny.asked(tmp_path, member, teacher), "cpu", 1)


def test_data_that_are_missing_are_told_before_anything_is_written(tmp_path):
    from nodestill.data import Dataset

    recipe = tiny.recipe(dataset=Dataset.CIFAR10)
    with pytest.raises(DataError, match="cannot be read"):
        run(recipe, Workspace(Store(tmp_path / "store"), tmp_path / "nowhere", "cpu"))
    assert not (tmp_path / "store").exists()


def test_a_store_in_the_way_is_told(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="Cannot write"):
        run(tiny.recipe(), Workspace(Store(tmp_path / "file"), accelerator="cpu"))
