"""The models of an experiment: folders that change with what matters and with nothing else, weights by seed alone."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tiny
from nodestill.data import DataIdentity
from nodestill.experiments import Recipe, Role, StudentRecipe, TeacherRecipe, from_plain, with_overrides
from nodestill.experiments.members import Member, build_model, members
from nodestill.models import DiscreteTwin, NeuralODEClassifier, ResNet
from nodestill.ode import Method, Solver


def folders(recipe: Recipe, data: DataIdentity = tiny.IDENTITY) -> dict[Role, str]:
    return {member.role: member.folder for member in members(recipe, data)}


def changed(path: str, text: str) -> dict[Role, str]:
    return folders(with_overrides(tiny.recipe(), [(path, text)]))


def differing(other: dict[Role, str]) -> set[str]:
    return {role.value for role, name in folders(tiny.recipe()).items() if other[role] != name}


ALL = {"teacher", "distilled", "undistilled", "stem-only"}
TAUGHT = {"distilled", "stem-only"}


def test_the_teacher_comes_first_and_every_folder_says_what_it_holds():
    found = members(tiny.recipe(), tiny.IDENTITY)
    assert [member.role for member in found] == [Role.TEACHER, Role.DISTILLED, Role.UNDISTILLED, Role.STEM_ONLY]
    stems = [member.folder.rpartition("-")[0] for member in found]
    assert stems == [
        "teacher-digits-resnet8",
        "student-digits-node1-kd",
        "student-digits-node1-labels",
        "student-digits-stem-only-kd",
    ]
    assert [member.title for member in found] == ["ResNet-8", "NODE(1)", "NODE(1)", "stem only"]
    assert [member.teacher for member in found] == [None, found[0].folder, None, found[0].folder]


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("about", "other words", set()),
        ("monitor_images", "0", set()),
        ("name", "other", set()),
        ("robustness.images", "7", set()),
        ("robustness.eps_255", "3", set()),
        ("seed", "1", ALL),
        ("dataset", "svhn", ALL),
        ("teacher.width", "4", {"teacher", *TAUGHT}),
        ("teacher.training.lr", "0.3", {"teacher", *TAUGHT}),
        ("student.distillation.temperature", "4", TAUGHT),
        ("student.training.lr", "0.3", TAUGHT),
        ("student.channels", "5", {*TAUGHT, "undistilled"}),
        ("student.solver.steps", "3", {*TAUGHT, "undistilled"}),
        ("student.t1", "2", {"distilled", "undistilled"}),
        ("undistilled.lr", "0.3", {"undistilled"}),
        ("undistilled.augment.flip", "true", {"undistilled"}),
    ],
)
def test_a_folder_changes_with_what_its_model_depends_on_and_with_nothing_else(path, text, expected):
    assert differing(changed(path, text)) == expected


def test_other_data_are_another_folder_and_another_name_for_them_is_not():
    assert differing(folders(tiny.recipe(), DataIdentity("made by a test", "87654321"))) == ALL
    assert differing(folders(tiny.recipe(), DataIdentity("renamed", "12345678"))) == set()


def test_a_description_is_complete():
    member = members(tiny.recipe(), tiny.IDENTITY)[1]
    found = member.description()
    assert found["role"] == "distilled"
    assert found["model"]["solver"]["method"] == "euler"
    assert (found["provenance"], found["data"]) == ("made by a test", "12345678")
    assert (found["title"], found["folder"], found["teacher"]) == (member.title, member.folder, member.teacher)


def test_weights_are_a_function_of_the_seed_and_leave_the_global_state_alone():
    for member in members(tiny.recipe(), tiny.IDENTITY):
        before = torch.get_rng_state()
        one, same, other = (build_model(member.model, seed, 3) for seed in (4, 4, 5))
        assert torch.equal(torch.get_rng_state(), before)
        torch.rand(3)
        pairs = [list(zip(one.parameters(), model.parameters(), strict=True)) for model in (same, other)]
        assert all(torch.equal(a, b) for a, b in pairs[0])
        assert not all(torch.equal(a, b) for a, b in pairs[1])


def test_models_are_what_the_recipe_says():
    teacher, student, _, stem_only = (build_model(m.model, 0, 3) for m in members(tiny.recipe(), tiny.IDENTITY))
    assert isinstance(teacher, ResNet)
    assert isinstance(student, NeuralODEClassifier)
    assert (student.t1, student.solver.steps) == (1.0, 2)
    assert stem_only.t1 == 0
    images = torch.rand(2, 3, 8, 8)
    assert teacher(images).shape == student(images).shape == (2, 3)


def test_a_twin_has_as_many_blocks_as_its_student_makes_evaluations():
    recipe = replace(tiny.recipe().student, solver=Solver(Method.MIDPOINT, steps=3), further=(6, 8), twin=True)
    twin = build_model(recipe, 0, 3)
    assert isinstance(twin, DiscreteTwin)
    assert [[f.channels for f in blocks] for blocks in twin.blocks] == [[4] * 6, [6] * 6, [8] * 6]


def test_the_statistics_of_the_images_are_part_of_the_model():
    recipe = members(tiny.recipe(), tiny.IDENTITY)[0].model
    images = torch.rand(2, 3, 8, 8)
    plain, shifted = (build_model(recipe, 0, 3, mean).eval() for mean in ((0.0, 0.0, 0.0), (0.5, 0.5, 0.5)))
    torch.testing.assert_close(plain(images), shifted(images + 0.5), rtol=0, atol=1e-5)
    assert not torch.allclose(plain(images), shifted(images), atol=1e-3)


def test_only_what_a_loss_reaches_wants_a_gradient():
    """Processes that share a training wait for the gradient of every parameter that wants one."""
    for member in members(tiny.recipe(), tiny.IDENTITY):
        model = build_model(member.model, 0, 3)
        model(torch.rand(2, 3, 8, 8)).sum().backward()
        wanting = [parameter for parameter in model.parameters() if parameter.requires_grad]
        assert wanting
        assert all(parameter.grad is not None for parameter in wanting), member.role


RESULTS = Path(__file__).parents[2] / "results"


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*/*-????????/recipe.json")), ids=lambda path: path.parent.name)
def test_what_ran_before_a_field_existed_keeps_its_folder(path):
    """The rows that are committed: read back with every field that came since, they are in the folder of their name."""
    recipe = json.loads(path.read_text())
    kind = TeacherRecipe if recipe["role"] == "teacher" else StudentRecipe
    model, data = from_plain(kind, recipe["model"]), DataIdentity(recipe["provenance"], recipe["data"])
    member = Member(Role(recipe["role"]), model, recipe["dataset"], data, recipe["seed"], recipe["teacher"])
    assert member.folder == path.parent.name


def test_a_frozen_f_keeps_its_weights_and_passes_gradients_on():
    model = build_model(replace(tiny.recipe().student, frozen=True), 0, 3)
    model(torch.rand(2, 3, 8, 8)).sum().backward()
    assert all(parameter.grad is None for parameter in model.dynamics.parameters())
    assert all(parameter.grad is not None for parameter in (*model.encoder.parameters(), *model.head.parameters()))


def test_a_twin_can_be_told_how_many_blocks_it_has():
    twin = build_model(replace(tiny.recipe().student, solver=Solver(), twin=True, blocks=3), 0, 3)
    assert isinstance(twin, DiscreteTwin)
    assert [len(blocks) for blocks in twin.blocks] == [3]


def test_f_is_what_the_recipe_says():
    changed = replace(tiny.recipe().student, pre_activation=True, f_scale=0.5)
    for student in (tiny.recipe().student, changed):
        f = build_model(student, 0, 10).dynamics
        assert (f.pre_activation, f.scale) == (student.pre_activation, student.f_scale)
