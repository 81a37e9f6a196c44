"""Robust distillation as a whole: what a recipe may ask, that a stopped training goes on, and that it makes students robust."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tiny
from nodestill.attacks import LinfBudget, pgd
from nodestill.data import Dataset, ImageSet, identify
from nodestill.errors import RecipeError, TimeUp
from nodestill.experiments import Distillation, asked_recipe, published, recipe_named, recipes
from nodestill.experiments.fit import train_member
from nodestill.experiments.loaded import load_run
from nodestill.experiments.members import Member, members
from nodestill.experiments.model_recipes import DistillationObjective
from nodestill.ode import Method, Solver
from nodestill.precision import Precision
from nodestill.training import Schedule

HINTON, ARD, RSLAD = DistillationObjective.HINTON, DistillationObjective.ARD, DistillationObjective.RSLAD
SMALL = LinfBudget(8, step_255=4, steps=2)


# Recipes


def test_what_was_there_before_keeps_its_folder():
    found = {member.folder for member in members(recipe_named("demo"), identify(Dataset.DIGITS, None))}
    assert {"teacher-digits-resnet20-97295636", "student-digits-node1-kd-b117a4ec"} <= found


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ("--student.distillation.objective rslad", Distillation(3.0, 0.9, RSLAD)),
        ("--student.distillation.objective ard --student.distillation.temperature 30", Distillation(30.0, 0.9, ARD)),
        ("--student.distillation.once true", Distillation(3.0, 0.9, once=True)),
        (
            "--student.distillation.objective=rslad --student.distillation.adversarial.eps-255=16",
            Distillation(3.0, 0.9, RSLAD, adversarial=LinfBudget(16, 2, 10)),
        ),
        (
            "--student.distillation.adversarial.steps 3 --student.distillation.objective ard",
            Distillation(3.0, 0.9, ARD, adversarial=LinfBudget(8, 2, 3)),
        ),
    ],
)
def test_a_command_line_asks_for_a_robust_student(changes, expected):
    recipe = asked_recipe("demo", changes.split())
    assert recipe.student.distillation == expected
    one, other = ([m.folder for m in members(r, tiny.IDENTITY)] for r in (recipe, recipe_named("demo")))
    assert one[0] == other[0]  # the teacher
    assert one[1] != other[1]


def test_a_file_asks_for_a_robust_teacher(tmp_path):
    (tmp_path / "mine.toml").write_text('base = "demo"\n[teacher.adversarial]\neps_255 = 16\nsteps = 4\n')
    recipe = asked_recipe(str(tmp_path / "mine.toml"), [])
    assert recipe.teacher.adversarial == LinfBudget(16, 1, 4)
    assert asked_recipe("digits-robust", ["--teacher.adversarial", "none"]).teacher.adversarial is None
    folders = [members(r, tiny.IDENTITY)[0].folder for r in (recipe, recipe_named("demo"))]
    assert folders[0] != folders[1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            "--student.distillation.objective rsald",
            r"objective cannot be 'rsald'\. Did you mean 'rslad'\? There are: hinton, hinton-mean, logits, ard",
        ),
        (
            "--student.distillation.adversarial.eps_255 4",
            r"distillation.adversarial must be left out where nothing is perturbed: choose ard or rslad\. Got LinfBudget\(eps",
        ),
        (
            "--student.distillation.objective ard --student.distillation.adversarial.steps 0",
            r"distillation.adversarial.steps must be at least 1: .* 10 is usual\. Got 0",
        ),
        (
            "--student.distillation.objective ard --student.distillation.adversarial.eps_255 0",
            r"distillation.adversarial.eps_255 must be at least 1: .* 8 is usual\. Got 0",
        ),
        (
            "--student.distillation.objective ard --student.distillation.adversarial.eps_255 300",
            r"student.distillation.adversarial: eps_255 must lie in 0 ... 255, got 300",
        ),
        ("--student.distillation.once maybe", "once must be true or false, got 'maybe'"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes, said):
    with pytest.raises(RecipeError, match=said):
        asked_recipe("demo", changes.split())


def test_a_teacher_that_is_trained_on_nothing_is_refused():
    with pytest.raises(RecipeError, match=r"teacher.adversarial.steps must be at least 1"):
        replace(tiny.recipe().teacher, adversarial=LinfBudget(8, 2, 0))


def test_a_robust_student_is_not_compared_with_the_papers():
    recipe = recipe_named("paper-cifar10-node1")
    assert published(recipe)
    settings = recipe.student.distillation
    once, robust = (replace(settings, **change) for change in ({"once": True}, {"objective": ARD}))
    assert published(replace(recipe, student=replace(recipe.student, distillation=once))) == published(recipe)
    assert published(replace(recipe, student=replace(recipe.student, distillation=robust))) == {}
    assert published(replace(recipe, teacher=replace(recipe.teacher, adversarial=SMALL))) == {}


def test_the_robust_digits_are_the_demos_student_with_a_robust_teacher():
    demo, robust = recipes()["demo"], recipes()["digits-robust"]
    assert robust.teacher.adversarial is not None
    settings = robust.student.distillation
    assert (settings.objective, settings.once) == (RSLAD, True)
    assert settings.adversarial.eps_255 in robust.robustness.eps_255
    same = {"distillation": None, "solver": demo.student.solver}
    assert replace(robust.student, **same) == replace(demo.student, **same)
    assert robust.undistilled == demo.undistilled
    assert robust.student.solver.method.is_adaptive  # so that the attacks replay
    assert settings.adversarial.steps * settings.adversarial.step_255 >= settings.adversarial.eps_255


# Training


def taught(settings: Distillation, teacher: Member, precision: Precision = Precision.FLOAT32, **changes) -> Member:
    plan = replace(tiny.ADAM, precision=precision)
    member = tiny.student(plan, teacher)
    return replace(member, model=replace(member.model, distillation=settings, **changes))


def trained(root: Path, member: Member, teacher: Member | None, stops: tuple[int, ...] = ()) -> tuple[bytes, list]:
    if teacher is not None:
        train_member(tiny.asked(root, teacher), "cpu", 1)

    for stop in stops:

        def watch(task: str, done: int, total: int, note: str, stop: int = stop) -> None:
            if done == stop:
                raise TimeUp("stopped by the test")

        with pytest.raises(TimeUp):
            train_member(tiny.asked(root, member, teacher, watch), "cpu", 1)
        torch.rand(stop)  # no global random state takes part
    asked = tiny.asked(root, member, teacher)
    train_member(asked, "cpu", 1)
    rows = [row | {"seconds": 0} for row in asked.folder.rows("training.jsonl")]
    return (asked.folder.path / "weights.safetensors").read_bytes(), rows


WAYS = {
    "hinton, once": (Distillation(3.0, 0.9, once=True), {}),
    "ard": (Distillation(3.0, 0.9, ARD, adversarial=SMALL), {}),
    "rslad, once": (Distillation(1.0, 0.5, RSLAD, True, SMALL), {"solver": Solver(Method.MIDPOINT, steps=2)}),
    "rslad, bfloat16": (Distillation(1.0, 0.5, RSLAD, adversarial=SMALL), {"precision": Precision.BFLOAT16}),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_stopped_training_goes_on_bit_for_bit(tmp_path, way):
    settings, changes = WAYS[way]
    teacher = tiny.teacher(tiny.SGD, width=4)
    member = taught(settings, teacher, **changes)
    unbroken = trained(tmp_path / "a", member, teacher)
    assert trained(tmp_path / "b", member, teacher, stops=(2, 7)) == unbroken
    parts = {HINTON: {"cross_entropy", "kl"}, ARD: {"cross_entropy", "kl_adversarial"}, RSLAD: {"kl", "kl_adversarial"}}
    robust = set() if settings.objective is HINTON else {"robust_accuracy"}
    assert set(unbroken[1][0]["parts"]) == parts[settings.objective] | robust | {"accuracy", "agreement"}


def test_a_stopped_teacher_goes_on_bit_for_bit_on_perturbed_images(tmp_path):
    plain = tiny.teacher(tiny.SGD, width=2)
    member = replace(plain, model=replace(plain.model, adversarial=SMALL))
    unbroken = trained(tmp_path / "a", member, None)
    assert trained(tmp_path / "b", member, None, stops=(2, 7)) == unbroken
    assert set(unbroken[1][0]["parts"]) == {"cross_entropy_adversarial", "robust_accuracy"}
    assert unbroken[0] != trained(tmp_path / "c", plain, None)[0]


def test_each_way_of_teaching_makes_another_student(tmp_path):
    teacher = tiny.teacher(tiny.SGD, width=4)
    ways = [Distillation(3.0, 0.9), Distillation(3.0, 0.9, ARD, adversarial=SMALL)]
    ways += [replace(ways[1], objective=RSLAD), *(replace(way, once=True) for way in ways)]
    solver = Solver(Method.MIDPOINT, steps=1)
    members = [taught(way, teacher, solver=solver) for way in ways]
    assert len({trained(tmp_path / str(number), member, teacher)[0] for number, member in enumerate(members)}) == len(ways)


# Robustness


def frail(count: int, seed: int) -> ImageSet:
    """Two classes told apart by a coarse difference in brightness, which is robust, and by a fine one, which is not."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    sign = (2 * labels - 1)[:, None, None, None].float()
    coarse = torch.zeros(1, 3, 8, 8)
    coarse[:, :, 2:6, 2:6] = 1
    fine = ((torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2 - 1).float()
    noise = torch.randn(count, 3, 8, 8, generator=generator) * 10
    strength = 15 * torch.randn(count, 1, 1, 1, generator=generator)
    pixels = 128 + sign * (70 * coarse + 20 * fine) + strength * coarse + noise
    return ImageSet("frail", "made by a test", pixels.round().clamp(0, 255).to(torch.uint8), labels, ("a", "b"))


def robust_share(folder, data: ImageSet, eps_255: int) -> float:
    """Return the share of images that PGD with many steps leaves right."""
    model = load_run(folder, torch.device("cpu")).model
    budget = LinfBudget(eps_255, 2, 20)
    result = pgd(model, data.images.float() / 255, data.labels, budget, keys=torch.arange(len(data)))
    return 1 - float(result.fooled.float().mean())


def test_a_robustly_distilled_student_resists_what_a_distilled_one_does_not(tmp_path):
    plan = replace(tiny.ADAM, lr=0.03, epochs=6, batch_size=50, schedule=Schedule.TRIANGLE, milestones=(0.3,))
    attack = LinfBudget(24, step_255=8, steps=4)
    teacher = tiny.teacher(plan, width=4)
    teacher = replace(teacher, model=replace(teacher.model, adversarial=attack))
    ways = [Distillation(1.0, 0.9), *(Distillation(1.0, 5 / 6, kind, True, attack) for kind in (ARD, RSLAD))]
    changes = {"solver": Solver(Method.MIDPOINT, steps=1), "channels": 16}
    students = [taught(way, teacher, **changes) for way in ways]
    students = [replace(member, model=replace(member.model, training=plan)) for member in students]
    shares = []
    for member in (teacher, *students):
        asked = tiny.asked(tmp_path, member, None if member is teacher else teacher)
        asked = replace(asked, train_set=frail(300, 0), test_set=frail(100, 1))
        train_member(asked, "cpu", 1)
        shares.append([robust_share(asked.folder, asked.test_set, eps) for eps in (0, 12, 24)])
    of_teacher, plain, *robust = shares
    assert min(clean for clean, _, _ in shares) > 0.95
    for _, half, whole in (of_teacher, *robust):
        assert half > plain[1] + 0.1, shares
        assert whole > plain[2] + 0.1, shares
