"""What a recipe refuses, and which students it asks for."""

from dataclasses import replace

import pytest

import tiny
from nodestill.attacks import AttackName
from nodestill.errors import RecipeError
from nodestill.experiments import Distillation, RobustnessRecipe, Role
from nodestill.ode import Method, Solver


@pytest.mark.parametrize(
    ("part", "field", "value", "said"),
    [
        ("teacher", "depth", 21, r"teacher.depth must be 6 n \+ 2; the paper uses 20 to 110\. Got 21"),
        ("teacher", "depth", 2, "teacher.depth"),
        ("teacher", "width", 3, r"teacher.width must be even and at least 2.* Got 3"),
        ("teacher", "width", 0, "teacher.width"),
        ("student", "channels", 0, "student.channels must be at least 1"),
        ("student", "layers", 0, "student.layers"),
        ("student", "t1", -1.0, "student.t1 must be finite and >= 0"),
        ("student", "t1", float("inf"), "student.t1"),
        ("student", "t1", float("nan"), "student.t1"),
        ("student", "further", (4, 0), "student.further must hold channels of at least 1"),
        ("robustness", "eps_255", (8, 4), "robustness.eps_255 must be increasing whole numbers of 1/255 from 0 to 255"),
        ("robustness", "eps_255", (4, 4), "robustness.eps_255"),
        ("robustness", "eps_255", (-1,), "robustness.eps_255"),
        ("robustness", "eps_255", (256,), "robustness.eps_255"),
        ("robustness", "eps_255", (), "robustness.eps_255"),
        ("robustness", "attacks", (), "robustness.attacks must name at least one"),
        ("robustness", "images", 0, "robustness.images must be at least 1, or none for all"),
        ("robustness", "batch_size", 0, "robustness.batch_size"),
        (None, "controls", (Role.TEACHER,), "controls must be among undistilled, stem-only and discrete-twin"),
        (None, "controls", (Role.DISTILLED,), "controls"),
        (None, "monitor_images", -1, "monitor_images"),
        (None, "name", "", "name must be a plain word"),
        (None, "name", "a/b", "name"),
        (None, "name", "..", "name"),
        (None, "name", "a\nb", "name"),
        (None, "seed", 2**63, "seed must fit into 64 bits"),
        (None, "seed", -(2**63) - 1, "seed"),
    ],
)
def test_a_recipe_that_cannot_be_meant_is_refused(part, field, value, said):
    whole = tiny.recipe()
    with pytest.raises(RecipeError, match=said):
        replace(whole if part is None else getattr(whole, part), **{field: value})


@pytest.mark.parametrize(
    ("solver", "coarse"),
    [
        (Solver(), 1),
        (Solver(Method.MIDPOINT, steps=3), 1),
        (Solver(Method.MIDPOINT, steps=2), -1),
        (Solver(Method.MIDPOINT, steps=2), 99),
    ],
)
def test_only_an_even_number_of_steps_is_halved_and_not_to_the_end(solver, coarse):
    with pytest.raises(RecipeError, match=r"student\.coarse_epochs must be 0, or below the epochs"):
        replace(tiny.recipe().student, solver=solver, coarse_epochs=coarse)


def test_a_teacher_that_is_asked_on_each_view_sees_no_small_images():
    student = tiny.recipe().student
    small = replace(student.training, epochs=3, sides=(6,))
    with pytest.raises(RecipeError, match=r"student\.training\.sides must be none unless distillation\.once is true"):
        replace(student, training=small)
    assert replace(student, training=small, distillation=replace(student.distillation, once=True)).training.sides == (6,)
    with pytest.raises(RecipeError, match=r"training\.sides must be at most three sizes where training is compiled"):
        replace(small, epochs=9, sides=(3, 4, 5, 6), compiled=True)


def test_controls_without_a_solver_are_the_same_however_it_is_refined():
    recipe = tiny.recipe()
    student = replace(
        recipe.student, solver=Solver(Method.MIDPOINT, steps=2), training=replace(recipe.student.training, epochs=4)
    )
    whole = replace(recipe, student=student, controls=(Role.STEM_ONLY, Role.TWIN))
    refined = replace(whole, student=replace(student, coarse_epochs=3))
    assert [whole.students()[role] for role in whole.controls] == [refined.students()[role] for role in whole.controls]
    with pytest.raises(RecipeError, match="coarse_epochs"):  # the undistilled control has too few epochs for it
        replace(refined, controls=(Role.UNDISTILLED,), undistilled=replace(recipe.undistilled, epochs=2))


def test_what_needs_fixed_steps_is_refused_without():
    student, adaptive = tiny.recipe().student, Solver()
    assert replace(student, twin=True, training=replace(student.training, compiled=True)).twin
    with pytest.raises(RecipeError, match=r"student.solver.method must have fixed steps for a twin. Got dopri5"):
        replace(student, twin=True, solver=adaptive)
    with pytest.raises(RecipeError, match=r"student.training.compiled must be false unless steps are fixed"):
        replace(student, training=replace(student.training, compiled=True), solver=adaptive)


def test_a_student_is_no_twin_itself():
    with pytest.raises(RecipeError, match=r"student.twin must be false: name discrete-twin among the controls"):
        tiny.recipe(student=replace(tiny.recipe().student, twin=True))


def test_what_a_control_cannot_be_is_refused_at_once():
    adaptive = replace(tiny.recipe().student, solver=Solver())
    with pytest.raises(RecipeError, match="compiled must be false"):
        tiny.recipe(student=adaptive, undistilled=replace(tiny.recipe().undistilled, compiled=True))


def test_the_twin_is_a_control_that_is_asked_for():
    assert Role.TWIN not in tiny.recipe().students()
    students = tiny.recipe(controls=(Role.TWIN,)).students()
    assert students == {Role.DISTILLED: tiny.recipe().student, Role.TWIN: replace(tiny.recipe().student, twin=True)}


@pytest.mark.parametrize(("temperature", "kd_weight"), [(0.0, 0.5), (-1.0, 0.5), (3.0, 1.1), (3.0, -0.1)])
def test_a_distillation_out_of_range_is_refused(temperature, kd_weight):
    with pytest.raises(RecipeError, match="must"):
        Distillation(temperature, kd_weight)


def test_the_student_must_be_the_distilled_one():
    with pytest.raises(RecipeError, match=r"student.distillation must be set"):
        replace(tiny.recipe(), student=replace(tiny.recipe().student, distillation=None))


def test_a_student_without_an_equation_is_a_control():
    with pytest.raises(RecipeError, match=r"student.t1 must be positive: name stem-only among the controls. Got 0.0"):
        replace(tiny.recipe(), student=replace(tiny.recipe().student, t1=0.0))


def test_the_ends_of_the_ranges_are_allowed():
    RobustnessRecipe(eps_255=(0, 255), images=None, batch_size=1)
    replace(tiny.recipe(), seed=-(2**63), monitor_images=0, controls=())
    replace(tiny.recipe().student, t1=0.0, channels=1, layers=1)
    Distillation(0.1, 0.0)
    Distillation(20.0, 1.0)


def test_by_default_both_attacks_run_at_every_radius_up_to_twenty():
    asked = RobustnessRecipe()
    assert asked.eps_255 == tuple(range(21))
    assert asked.attacks == (AttackName.PGD, AttackName.MI_FGSM)
    assert asked.images is None


def test_the_students_differ_in_what_their_role_says_and_in_nothing_else():
    recipe = tiny.recipe(undistilled=tiny.SGD)
    students = recipe.students()
    assert list(students) == [Role.DISTILLED, Role.UNDISTILLED, Role.STEM_ONLY]
    assert students[Role.DISTILLED] == recipe.student
    assert students[Role.UNDISTILLED] == replace(recipe.student, distillation=None, training=tiny.SGD)
    assert students[Role.STEM_ONLY] == replace(recipe.student, t1=0.0)
    assert list(replace(recipe, controls=(Role.STEM_ONLY,)).students()) == [Role.DISTILLED, Role.STEM_ONLY]
