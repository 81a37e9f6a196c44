"""Run folders read back for a report: what is there, in the order of the experiment, and damage told in one sentence."""

import shutil

import pytest

import tiny
from nodestill.errors import DataError
from nodestill.experiments import RunFolder, Stage, Store, Workspace, read_experiment, read_run, run, to_plain
from nodestill.experiments.records import experiments_named, finished_experiments


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    run(tiny.recipe(controls=()), Workspace(Store(root), accelerator="cpu"))
    return root


@pytest.fixture
def store(finished, tmp_path):
    """A copy that may be damaged."""
    return shutil.copytree(finished, tmp_path / "store")


def test_an_experiment_comes_back_teacher_first(finished):
    found = read_experiment(finished, "tiny")
    assert (found.name, found.recipe) == ("tiny", to_plain(tiny.recipe(controls=())))
    assert [run.role for run in found.runs] == ["teacher", "distilled"]
    assert [run.title for run in found.runs] == ["ResNet-8", "NODE(1)"]
    for records in found.runs:
        folder = RunFolder(records.path)
        assert records.training == folder.rows("training.jsonl")
        assert records.evaluation == folder.read("evaluation.json")
        assert records.robustness == folder.rows("robustness.jsonl")
        assert len(records.gallery) == 8
        assert records.environment["torch"]


def test_only_the_rows_of_the_newest_attack_are_read(store):
    folder = RunFolder(read_experiment(store, "tiny").runs[0].path)
    old = folder.rows("robustness.jsonl")
    newer = [row | {"recipe": "newer", "accuracy": 0.5} for row in old]
    for row in newer:
        folder.append("robustness.jsonl", row)
    assert read_run(folder).robustness == newer


def test_what_was_not_attacked_has_no_rows(store):
    for path in [*store.glob("*/robustness.jsonl"), *store.glob("*/gallery.json")]:
        path.unlink()
    assert all(run.robustness == run.gallery == [] for run in read_experiment(store, "tiny").runs)


def test_what_is_not_finished_is_left_out(store):
    next(store.glob("student-*/DONE")).unlink()
    assert [run.role for run in read_experiment(store, "tiny").runs] == ["teacher"]
    next(store.glob("teacher-*/DONE")).unlink()
    with pytest.raises(DataError, match=r"No model of .*tiny is finished\. Run the recipe 'tiny'"):
        read_experiment(store, "tiny")


def test_an_unknown_experiment_is_refused_with_those_there_are(store):
    with pytest.raises(DataError, match=r"holds no experiment 'other'\. It holds: tiny"):
        read_experiment(store, "other")
    with pytest.raises(DataError, match="It holds: none; run a recipe first"):
        read_experiment(store / "nowhere", "other")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tiny/experiment.json", "{"),
        ("tiny/experiment.json", "{}"),
        ("tiny/experiment.json", "[]"),
        ("teacher-*/recipe.json", '{"role": "teacher"}'),
        ("teacher-*/recipe.json", ""),
        ("teacher-*/evaluation.json", "{}"),
        ("teacher-*/environment.json", '{"torch": '),
        ("teacher-*/training.jsonl", '{"epoch": 1, "los'),
        ("teacher-*/robustness.jsonl", "{}"),
        ("teacher-*/robustness.jsonl", "3"),
        ("teacher-*/gallery.json", "["),
    ],
)
def test_damage_is_one_clear_error(store, name, content):
    path = next(store.glob(name))
    path.write_text(content)
    with pytest.raises(DataError, match=rf"{path.name} is damaged \(.*Remove") as caught:
        read_experiment(store, "tiny")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["recipe.json", "evaluation.json", "environment.json"])
def test_a_missing_file_is_one_clear_error(store, name):
    next(store.glob(f"teacher-*/{name}")).unlink()
    with pytest.raises(DataError, match=rf"{name} is missing"):
        read_experiment(store, "tiny")


def test_stage_names_are_what_the_command_calls_them():
    assert [stage.value for stage in Stage] == ["teacher", "student", "robustness"]


def test_a_changed_recipe_is_found_by_the_name_of_the_recipe_if_there_is_one_only(tmp_path):
    for name in ("demo-11111111", "other"):
        RunFolder(tmp_path / name).write("experiment.json", {"recipe": {}, "members": ["model"], "attack": "x"})
    assert experiments_named(tmp_path, "demo") == ["demo-11111111"]
    assert experiments_named(tmp_path, "dem") == []
    assert experiments_named(tmp_path, "other") == ["other"]
    RunFolder(tmp_path / "demo-22222222").write("experiment.json", {"recipe": {}, "members": ["model"], "attack": "x"})
    assert len(experiments_named(tmp_path, "demo")) == 2
    assert finished_experiments(tmp_path) == []
    RunFolder(tmp_path / "model").write("recipe.json", {})
    RunFolder(tmp_path / "model").finish()
    assert finished_experiments(tmp_path) == ["demo-11111111", "demo-22222222", "other"]
