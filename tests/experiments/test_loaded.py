"""Models read back from their folders alone, and the names that mean one."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image

import tiny
from nodestill.errors import DataError, InputError, NodestillError
from nodestill.experiments import Store, Workspace, find_run, load_run, run
from nodestill.experiments.fit import train_member
from nodestill.experiments.predict import predict_files
from nodestill.models import NeuralODEClassifier, ResNet
from nodestill.precision import Precision

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    run(tiny.recipe(controls=()), Workspace(Store(root), accelerator="cpu"))
    return root


@pytest.fixture
def store(finished, tmp_path):
    return Store(shutil.copytree(finished, tmp_path / "store"))


def test_a_model_comes_back_frozen_in_evaluation_mode_and_with_its_classes(store):
    for name, kind in (("tiny:teacher", ResNet), ("tiny", NeuralODEClassifier)):
        model, names, recipe = load_run(find_run(store, name), CPU)
        assert isinstance(model, kind)
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
        assert names == tuple("0123456789")
        assert recipe["image_size"] == [8, 8]


def test_loading_needs_no_data_and_keeps_the_normalisation(tmp_path):
    member = tiny.teacher(tiny.SGD, width=2)
    asked = tiny.asked(tmp_path, member)
    train_member(asked, "cpu", 1)
    model = load_run(asked.folder, CPU).model
    mean = asked.train_set.images.double().mean((0, 2, 3)) / 255
    torch.testing.assert_close(model.normalize.mean.flatten().double(), mean, rtol=0, atol=1e-6)


def test_a_model_is_scored_in_float32_whatever_it_was_trained_in(tmp_path):
    member = tiny.student(tiny.SGD, None)
    solver = replace(member.model.solver, precision=Precision.BFLOAT16)
    asked = tiny.asked(tmp_path, replace(member, model=replace(member.model, solver=solver)))
    train_member(asked, "cpu", 1)
    assert asked.folder.read("recipe.json")["model"]["solver"]["precision"] == "bfloat16"
    assert load_run(asked.folder, CPU).model.solver == replace(solver, precision=Precision.FLOAT32)


def test_names_of_runs(store):
    teacher, student = (next(store.root.glob(f"{kind}-*")).name for kind in ("teacher", "student"))
    for name, folder in (("tiny", student), ("tiny:distilled", student), ("tiny:teacher", teacher), (teacher, teacher)):
        assert find_run(store, name).path.name == folder


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("other", r"holds no run 'other'\. Experiments there: tiny; see --store"),
        ("tiny:undistilled", r"'tiny' has no finished undistilled model; it has: teacher, distilled"),
        ("tiny:x", "has no finished x model"),
        ("", "holds no run ''"),
        ("x/../y", "holds no run"),
    ],
)
def test_names_that_mean_nothing_are_refused_with_those_that_do(store, name, said):
    with pytest.raises(DataError, match=said):
        find_run(store, name)


def test_an_experiment_without_a_finished_model_says_so(store):
    for path in store.root.glob("*/DONE"):
        path.unlink()
    with pytest.raises(DataError, match=r"no finished distilled model; it has: none\."):
        find_run(store, "tiny")
    with pytest.raises(DataError, match="holds no finished model"):
        load_run(find_run(store, next(store.root.glob("teacher-*")).name), CPU)


@pytest.mark.parametrize("damage", ["cut", "other", "[1]", "{}", "no model", "wrong model", "no seed"])
def test_a_damaged_recipe_is_one_clear_error(store, damage):
    folder = find_run(store, "tiny:teacher")
    recipe, path = folder.read("recipe.json"), folder.path / "recipe.json"
    match damage:
        case "cut":
            path.write_text(json.dumps(recipe)[:-30])
        case "no model":
            recipe.pop("model")
            path.write_text(json.dumps(recipe))
        case "no seed":
            recipe.pop("seed")
            path.write_text(json.dumps(recipe))
        case "wrong model":
            path.write_text(json.dumps(recipe | {"model": recipe["model"] | {"depth": "deep"}}))
        case _:
            path.write_text(damage)
    with pytest.raises(NodestillError, match=r"recipe.json") as caught:
        load_run(folder, CPU)
    assert "\n" not in str(caught.value)


def test_weights_that_do_not_fit_are_one_clear_error(store):
    teacher, student = (find_run(store, f"tiny:{role}") for role in ("teacher", "distilled"))
    shutil.copy(student.path / "weights.safetensors", teacher.path)
    with pytest.raises(DataError, match=r"weights.safetensors does not fit its recipe"):
        load_run(teacher, CPU)
    (teacher.path / "weights.safetensors").write_bytes(b"cut")
    with pytest.raises(DataError, match=r"weights.safetensors is damaged"):
        load_run(teacher, CPU)


# Predictions


def drawn(path, size=(8, 8), value: int = 100):
    Image.new("RGB", size, (value, 50, 10)).save(path)
    return path


def test_files_are_classified_as_the_model_does(store, tmp_path):
    paths = [drawn(tmp_path / f"{value}.png", value=value) for value in (0, 200)]
    pixels = torch.tensor([[0, 50, 10], [200, 50, 10]]).view(2, 3, 1, 1).expand(2, 3, 8, 8).float() / 255
    for name in ("tiny:teacher", "tiny"):
        loaded = load_run(find_run(store, name), CPU)
        found = predict_files(loaded, paths)
        expected = loaded.model(pixels).softmax(1)
        assert [item.path for item in found] == paths
        assert [item.name for item in found] == [str(int(row.argmax())) for row in expected]
        assert [item.probability for item in found] == pytest.approx([float(row.max()) for row in expected])
        assert {item.evaluations for item in found} == ({"2"} if name == "tiny" else {""})


def test_images_that_do_not_fit_are_refused(store, tmp_path):
    loaded = load_run(find_run(store, "tiny"), CPU)
    (tmp_path / "text.png").write_text("no image")
    for paths, error, said in (
        ([], InputError, "at least one image file"),
        ([drawn(tmp_path / "wide.png", (9, 8))], InputError, "8x9 pixels, expected 8x8"),
        ([tmp_path / "none.png"], DataError, "none.png cannot be read"),
        ([tmp_path / "text.png"], DataError, "text.png is not a readable image"),
        ([drawn(tmp_path / "a.png"), drawn(tmp_path / "b.png", (4, 4))], DataError, "2 sizes"),
    ):
        with pytest.raises(error, match=said):
            predict_files(loaded, paths)
