"""Recipes asked for on a command line and in files."""

from dataclasses import replace

import pytest

from nodestill.errors import RecipeError
from nodestill.experiments import asked_recipe, recipe_named
from nodestill.training import Optimizer


def test_a_recipe_by_name_is_that_recipe():
    assert asked_recipe("demo", []) == recipe_named("demo")


def test_overrides_are_written_with_a_space_or_an_equals_sign():
    one = asked_recipe("demo", ["--student.channels", "4", "--robustness.eps-255", "0,1"])
    other = asked_recipe("demo", ["--student.channels=4", "--robustness.eps_255=0,1"])
    assert one == other
    assert one.student.channels == 4
    assert one.robustness.eps_255 == (0, 1)
    assert asked_recipe("demo", ["--seed", "-3"]).seed == -3


def test_a_changed_recipe_gets_a_name_of_its_own():
    names = {asked_recipe("demo", ["--seed", seed]).name for seed in ("0", "1", "2")}
    assert len(names) == 3
    assert "demo" in names  # seed 0 is no change
    assert all(name.startswith("demo") for name in names)
    assert asked_recipe("demo", ["--seed", "1", "--name", "mine"]).name == "mine"
    assert asked_recipe("demo", ["--seed", "1"]) == asked_recipe("demo", ["--seed", "1"])


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (["seed", "1"], "'seed' stands alone; a change to the recipe is written as --student.channels 64"),
        (["--seed"], "--seed needs a value"),
        (["--seed", "1", "2"], "'2' stands alone"),
        (["--", "1"], "has no field ''"),
        (["--stdent.channels", "4"], "Did you mean 'student'"),
    ],
)
def test_what_is_no_override_is_refused(tokens, said):
    with pytest.raises(RecipeError, match=said):
        asked_recipe("demo", tokens)


def test_an_unknown_recipe_is_refused_with_those_there_are():
    with pytest.raises(RecipeError, match=r"There is no recipe 'dmo'\. Did you mean 'demo'\? There are: demo, cifar10-fast"):
        asked_recipe("dmo", [])


TOML = """
base = "demo"
seed = 3
[student]
channels = 4
t1 = 2
[student.training]
optimizer = "sgd"
milestones = [0.4]
[robustness]
eps_255 = [0, 1]
"""


def test_a_file_changes_its_base(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(TOML)
    found, base = asked_recipe(str(path), []), recipe_named("demo")
    training = replace(base.student.training, optimizer=Optimizer.SGD, milestones=(0.4,))
    student = replace(base.student, channels=4, t1=2.0, training=training)
    robustness = replace(base.robustness, eps_255=(0, 1))
    assert found == replace(base, name="mine", seed=3, student=student, robustness=robustness)
    assert asked_recipe(str(path), ["--seed", "4"]).name.startswith("mine-")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed = 3", 'must name the recipe that it changes, as base = "cifar10-smoke"'),
        ("base = 3", "must name the recipe"),
        ('base = "dmo"', "There is no recipe 'dmo'"),
        ('base = "demo', "is not TOML"),
        ('base = "demo"\nsede = 1', r"mine.toml has no field 'sede'\. Did you mean 'seed'"),
        ('base = "demo"\nseed = "1"', "mine.toml.seed must be int, got '1'"),
        ('base = "demo"\nstudent = 3', "mine.toml.student must be a table of fields, got 3"),
        ('base = "demo"\n[student]\nt1 = -1', "student.t1"),
        ('base = "demo"\n[robustness]\nattacks = "pgd"', "robustness.attacks must be a list"),
        ('base = "demo"\nseed = 2020-01-01', "seed must be int"),
        ('base = "demo"\nname = "../up"', "name must be a plain word"),
        ('base = "demo"\n[student.training.seed]\nx = 1', "training has no field 'seed'"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(tmp_path, text, said):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=said):
        asked_recipe(str(path), [])


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    for name, said in (("none.toml", "No such file"), ("folder.toml", "Is a directory"), ("bytes.toml", "is not TOML")):
        with pytest.raises(RecipeError, match=said):
            asked_recipe(str(tmp_path / name), [])
