"""The recipes and the numbers they are compared with, against the tables of the paper."""

from dataclasses import replace

import pytest

from nodestill.attacks import AttackName
from nodestill.data import Dataset
from nodestill.errors import RecipeError
from nodestill.experiments import Distillation, published, recipe_named, recipes
from nodestill.experiments.paper import PAPER_DISTILLED, PAPER_TEACHERS, PAPER_UNDISTILLED
from nodestill.ode.solver import Method
from nodestill.training import Optimizer, Schedule, learning_rate


@pytest.mark.parametrize("name", ["demo", "cifar10-smoke", "svhn-smoke"])
def test_recipes_are_found_by_their_names(name):
    assert recipe_named(name) is recipes()[name]
    assert recipe_named(name).name == name
    assert recipe_named(name).about


def test_an_unknown_name_is_refused():
    with pytest.raises(RecipeError, match=r"There is no recipe 'cifar'\. "):
        recipe_named("cifar")


@pytest.mark.parametrize(
    ("name", "depth", "temperature", "epochs", "teacher_epochs", "teacher_lr", "optimizer", "flip"),
    [
        ("paper-cifar10-node1", 44, 10, 200, 300, 0.1, Optimizer.SGD, True),
        ("paper-cifar10-node100", 44, 10, 200, 300, 0.1, Optimizer.ADAM, True),
        ("paper-svhn-node1", 110, 3, 40, 40, 0.01, Optimizer.SGD, False),
        ("paper-svhn-node100", 110, 3, 40, 40, 0.01, Optimizer.ADAM, False),
    ],
)
def test_the_papers_cells_to_the_letter(name, depth, temperature, epochs, teacher_epochs, teacher_lr, optimizer, flip):
    recipe = recipe_named(name)
    teacher, student = recipe.teacher.training, recipe.student
    assert (recipe.teacher.depth, recipe.teacher.width) == (depth, 16)
    assert (teacher.epochs, teacher.lr, teacher.optimizer, teacher.weight_decay) == (
        teacher_epochs,
        teacher_lr,
        Optimizer.SGD,
        1e-4,
    )
    assert (student.channels, student.layers, student.distillation) == (512, 4, Distillation(float(temperature), 0.9))
    assert student.t1 == (100 if name.endswith("100") else 1)
    assert (student.solver.method, student.solver.rtol, student.solver.atol) == (Method.DOPRI5, 1e-3, 1e-3)
    for plan, kind in ((student.training, optimizer), (recipe.undistilled, Optimizer.ADAM)):
        assert (plan.optimizer, plan.lr, plan.epochs, plan.weight_decay, plan.momentum) == (kind, 0.001, epochs, 0, 0.9)
    for plan in (teacher, student.training, recipe.undistilled):
        assert (plan.batch_size, plan.schedule, plan.augment.crop_padding, plan.augment.flip) == (128, Schedule.STEPS, 4, flip)
        rates = [learning_rate(plan, epoch, 1) / plan.lr for epoch in (0, plan.epochs // 2, plan.epochs * 3 // 4)]
        assert rates == pytest.approx([1, 0.1, 0.01])
    assert recipe.robustness.attacks == (AttackName.PGD, AttackName.MI_FGSM)
    assert recipe.robustness.eps_255 == tuple(range(21))
    assert recipe.robustness.images is None


def test_table_1():
    """The CIFAR-10 number of ResNet-110 is not legible."""
    assert PAPER_TEACHERS[Dataset.CIFAR10] == {20: 89.09, 32: 88.75, 44: 90.32, 56: 89.95}
    assert PAPER_TEACHERS[Dataset.SVHN] == {20: 91.68, 32: 90.96, 44: 93.20, 56: 94.58, 110: 92.54}
    assert PAPER_UNDISTILLED[Dataset.CIFAR10][1] == 63.45
    assert PAPER_UNDISTILLED[Dataset.CIFAR10][100] == 62.38
    assert PAPER_UNDISTILLED[Dataset.CIFAR10][500] == 69.94  # table 3, without attack
    assert (PAPER_UNDISTILLED[Dataset.SVHN][1], PAPER_UNDISTILLED[Dataset.SVHN][100]) == (88.36, 88.68)


TABLE_2 = """
cifar10  3  86.72 86.42 86.08 86.32 ?
cifar10 10  87.36 87.75 88.03 86.94 87.80
cifar10 20  87.96 87.79 87.10 87.01 87.41
svhn     3  93.46 92.89 93.12 93.02 93.53
svhn    10  93.12 92.74 92.46 92.74 93.14
svhn    20  92.77 92.24 92.22 92.67 93.18
"""


def test_table_2_and_the_gains_claimed():
    for line in TABLE_2.split("\n")[1:-1]:
        dataset, temperature, *cells = line.split()
        expected = {depth: float(cell) for depth, cell in zip((20, 32, 44, 56, 110), cells) if cell != "?"}
        assert PAPER_DISTILLED[Dataset(dataset)][int(temperature)] == expected
    gains = {
        dataset: max(max(row.values()) for row in PAPER_DISTILLED[dataset].values()) - PAPER_UNDISTILLED[dataset][1]
        for dataset in PAPER_DISTILLED
    }
    assert gains == pytest.approx({Dataset.CIFAR10: 24.58, Dataset.SVHN: 5.17})


def test_a_recipe_is_compared_with_its_own_cell():
    assert published(recipe_named("paper-cifar10-node1")) == {"teacher": 90.32, "undistilled": 63.45, "distilled": 88.03}
    assert published(recipe_named("paper-svhn-node1")) == {"teacher": 92.54, "undistilled": 88.36, "distilled": 93.53}
    assert published(recipe_named("paper-cifar10-node100")) == {"teacher": 90.32, "undistilled": 62.38}
    assert published(recipe_named("demo")) == {}


def test_a_temperature_that_the_paper_does_not_have_has_no_number():
    recipe = recipe_named("paper-cifar10-node1")
    between = replace(recipe, student=replace(recipe.student, distillation=Distillation(10.4, 0.9)))
    assert set(published(between)) == {"teacher", "undistilled"}
