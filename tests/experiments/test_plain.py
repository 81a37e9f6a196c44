"""Values to plain JSON and back, changes by path, and fingerprints that never change by accident."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from pathlib import Path

import pytest

import tiny
from nodestill.attacks import AttackName, LinfBudget
from nodestill.data import Augment
from nodestill.errors import RecipeError
from nodestill.experiments import Recipe, Role, fingerprint, from_plain, recipes, to_plain, with_overrides
from nodestill.experiments.plain import unknown_name
from nodestill.ode.solver import Method, Solver
from nodestill.training import Training


@pytest.mark.parametrize("name", list(recipes()))
def test_every_recipe_survives_json(name):
    recipe = recipes()[name]
    assert from_plain(Recipe, json.loads(json.dumps(to_plain(recipe)))) == recipe


def test_plain_values_hold_no_class_names():
    text = json.dumps(to_plain(tiny.recipe()))
    assert not any(kind in text for kind in ("Recipe", "Training", "Solver", "Augment", "Method"))
    assert to_plain({Role.TEACHER.value: (Method.RK4, None, 1.5)}) == {"teacher": ["rk4", None, 1.5]}


def changed(path: str, text: str) -> Recipe:
    return with_overrides(tiny.recipe(), [(path, text)])


@pytest.mark.parametrize(
    ("path", "text", "found"),
    [
        ("seed", "7", lambda r: r.seed == 7),
        ("seed", "-1", lambda r: r.seed == -1),
        ("student.t1", "2", lambda r: r.student.t1 == 2.0 and isinstance(r.student.t1, float)),
        ("student.training.lr", "1e-4", lambda r: r.student.training.lr == 1e-4),
        ("student.zero_last", "TRUE", lambda r: r.student.zero_last is True),
        ("student.training.augment.flip", "false", lambda r: r.student.training.augment.flip is False),
        ("student.solver.method", "midpoint", lambda r: r.student.solver.method is Method.MIDPOINT),
        ("student.solver.first_step", "0.25", lambda r: r.student.solver.first_step == 0.25),
        ("student.distillation.temperature", "20", lambda r: r.student.distillation.temperature == 20),
        ("student.training.milestones", "0.2, 0.9", lambda r: r.student.training.milestones == (0.2, 0.9)),
        ("student.training.milestones", "", lambda r: r.student.training.milestones == ()),
        ("robustness.images", "none", lambda r: r.robustness.images is None),
        ("robustness.images", "None", lambda r: r.robustness.images is None),
        ("robustness.eps_255", "0,8,16", lambda r: r.robustness.eps_255 == (0, 8, 16)),
        ("robustness.attacks", "mi-fgsm,pgd", lambda r: r.robustness.attacks == (AttackName.MI_FGSM, AttackName.PGD)),
        ("controls", "stem-only", lambda r: r.controls == (Role.STEM_ONLY,)),
        ("name", "other", lambda r: r.name == "other"),
        ("name", "none", lambda r: r.name == "none"),
    ],
)
def test_text_becomes_what_the_field_is(path, text, found):
    assert found(changed(path, text))


def test_an_override_changes_one_field_and_leaves_the_original_alone():
    recipe = tiny.recipe()
    other = with_overrides(recipe, [("student.training.epochs", "9")])
    assert recipe == tiny.recipe()
    assert replace(other, student=replace(other.student, training=recipe.student.training)) == recipe
    assert other.student.training == replace(recipe.student.training, epochs=9)
    assert with_overrides(recipe, []) == recipe


@pytest.mark.parametrize("turned", [False, True])
def test_changes_that_only_fit_together_are_checked_together(turned):
    """Neither a fixed-step method nor its number of steps can be set alone."""
    changes = [("student.solver.method", "dopri5"), ("student.solver.steps", "none")]
    solver = with_overrides(tiny.recipe(), changes[::-1] if turned else changes).student.solver
    assert (solver.method, solver.steps) == (Method.DOPRI5, None)
    with pytest.raises(RecipeError, match="steps = 2 contradicts dopri5"):
        with_overrides(tiny.recipe(), changes[:1])


def test_the_last_of_several_changes_to_a_field_counts():
    assert with_overrides(tiny.recipe(), [("seed", "1"), ("seed", "2")]).seed == 2


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        ("sede", "1", r"The recipe has no field 'sede'\. Did you mean 'seed'\? There are: name, dataset"),
        ("student.chanels", "1", r"student has no field 'chanels'\. Did you mean 'channels'\?"),
        ("student.training.xyz", "1", r"student.training has no field 'xyz'\. There are: optimizer, lr"),
        ("seed.x", "1", "seed is a single value and has no field 'x'"),
        ("student", "1", r"student holds several fields: set them one by one, as student\.stem"),
        ("student.distillation", "1", r"set them one by one, as student\.distillation\.temperature"),
        ("seed", "1.5", "seed must be a whole number, got '1.5'"),
        ("seed", "", "seed must be a whole number, got ''"),
        ("student.t1", "long", "student.t1 must be a number, got 'long'"),
        ("student.zero_last", "yes", "student.zero_last must be true or false, got 'yes'"),
        ("student.solver.method", "dopri", r"solver.method cannot be 'dopri'\. Did you mean 'dopri5'\? There are: dopri5, "),
        ("robustness.attacks", "pgd,fgsn", r"robustness.attacks\[1\] cannot be 'fgsn'"),
        ("robustness.eps_255", "1,x", "robustness.eps_255 must be a whole number, got 'x'"),
        ("student.training.epochs", "none", "must be a whole number, got 'none'"),
        ("undistilled", "none", "undistilled holds several fields"),
        ("student.solver.rtol", "0", "student.solver: rtol and atol must be positive"),
    ],
)
def test_a_change_that_cannot_be_meant_is_refused_with_what_can(path, text, said):
    with pytest.raises(RecipeError, match=said):
        changed(path, text)


def test_a_field_of_nothing_cannot_be_set():
    student = replace(tiny.recipe().student, distillation=None)
    with pytest.raises(RecipeError, match=r"distillation is none here, so distillation.temperature cannot be set"):
        with_overrides(student, [("distillation.temperature", "3")])


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("lr", "fast", "x.lr must be float, got 'fast'"),
        ("lr", True, "x.lr must be float, got True"),
        ("epochs", 1.0, "x.epochs must be int, got 1.0"),
        ("epochs", True, "x.epochs must be int, got True"),
        ("milestones", 0.5, "x.milestones must be a list, got 0.5"),
        ("augment", 3, "x.augment must be a table of fields, got 3"),
        ("optimizer", ["sgd"], "x.optimizer cannot be"),
        ("nonsense", 1, r"x has no field 'nonsense'"),
        ("augment", {"crop_padding": -1}, "x.augment: crop_padding and cutout must be at least 0"),
    ],
)
def test_plain_values_of_the_wrong_kind_are_refused_by_path(field, value, said):
    plain = to_plain(tiny.SGD) | {field: value}
    with pytest.raises(RecipeError, match=said):
        from_plain(Training, plain, "x")


def test_missing_fields_are_named():
    with pytest.raises(RecipeError, match=r"x is not complete: .*'lr'"):
        from_plain(Training, {"optimizer": "sgd"}, "x")


def test_a_whole_number_will_do_for_a_float():
    lr = from_plain(Training, to_plain(tiny.SGD) | {"lr": 1}).lr
    assert lr == 1.0
    assert isinstance(lr, float)


def test_unknown_names_suggest_only_what_is_near():
    assert unknown_name("No", "tset", ["test", "train"]) == "No 'tset'. Did you mean 'test'? There are: test, train."
    assert unknown_name("No", "xyz", ["test", "train"]) == "No 'xyz'. There are: test, train."


# Fingerprints


def leaves(value, path: str = ""):
    """Yield (path, value) of every scalar, enum and list field of a dataclass."""
    for field in fields(value):
        inner, where = getattr(value, field.name), f"{path}{field.name}"
        if is_dataclass(inner):
            yield from leaves(inner, f"{where}.")
        else:
            yield where, inner


def another(value) -> object:
    """A plain value of the same kind that differs."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, Enum):
        return next((member.value for member in type(value) if member is not value), "another")
    if isinstance(value, tuple):
        return [*to_plain(value), 1]
    return "x" if isinstance(value, str) else (value or 0) + 1


def test_a_fingerprint_changes_with_every_field():
    plain, seen = to_plain(tiny.recipe()), {fingerprint(tiny.recipe())}
    paths = list(leaves(tiny.recipe()))
    for path, value in paths:
        other = json.loads(json.dumps(plain))
        *outer, last = path.split(".")
        holder = other
        for name in outer:
            holder = holder[name]
        holder[last] = another(value)
        seen.add(fingerprint(other))
    assert len(seen) == 1 + len(paths) > 50


def test_a_fingerprint_is_of_values_not_of_their_order_or_type():
    one, other = {"a": 1, "b": (1, 2)}, {"b": [1, 2], "a": 1}
    assert fingerprint(one) == fingerprint(other)
    assert fingerprint("a", "b") != fingerprint("b", "a")
    assert fingerprint("ab") != fingerprint("a", "b")
    assert fingerprint(LinfBudget(8)) == fingerprint(to_plain(LinfBudget(8)))


def test_a_fingerprint_knows_nothing_of_what_moves_no_result():
    assert fingerprint(Solver(kept_bytes=1)) == fingerprint(Solver())
    assert fingerprint(Solver(max_steps=1)) != fingerprint(Solver())
    assert "kept_bytes" in to_plain(Solver())


def test_a_later_field_counts_only_where_it_is_not_as_ever():
    plain = {"crop_padding": 2, "flip": True, "cutout": 0}
    assert fingerprint(Augment(2, True)) == fingerprint(plain)
    assert fingerprint(Augment(2, True, reflect=True)) == fingerprint({**plain, "reflect": True})


def test_a_fingerprint_is_the_same_in_every_process():
    """And for ever: written out, because a change here would orphan everybody's run folders."""
    text = r'[{"a":[1,2.5,null,true,"\u00fc"],"b":0.1},"x"]'
    assert fingerprint({"b": 0.1, "a": [1, 2.5, None, True, "ü"]}, "x") == hashlib.sha256(text.encode()).hexdigest()[:8]
    code = f"import sys; sys.path.insert(0, {str(Path(tiny.__file__).parent)!r})\n"
    code += "import tiny; from nodestill.experiments import fingerprint; print(fingerprint(tiny.recipe()))"
    environment = {**os.environ, "PYTHONHASHSEED": "1234"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert run.stdout.strip() == fingerprint(tiny.recipe())
