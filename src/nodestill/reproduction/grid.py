"""The grid: every model that the paper's tables, its figure and our controls need, as plain values.

A `Cell` is one model with what is to be measured on it. Cells share: two that ask for the same training are one run folder,
because the folder is named by what the training depends on. Nothing here trains, reads or writes.
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Literal

from nodestill.data import Dataset
from nodestill.errors import RecipeError
from nodestill.experiments.attack_recipe import RobustnessRecipe
from nodestill.experiments.model_recipes import StudentRecipe, TeacherRecipe
from nodestill.experiments.paper import PAPER_DISTILLED, PAPER_TEACHERS, PAPER_UNDISTILLED
from nodestill.experiments.recipe import Recipe, Role
from nodestill.reproduction.scales import Scale, scaled

DEPTHS = (20, 32, 44, 56, 110)
TEMPERATURES = (3.0, 10.0, 20.0)
LONGER = 100.0
BY_ADAM = "kd-adam-scale"  # the distilled NODE(1) that is trained as students of longer horizons are
HORIZONS = (1.0, LONGER, 500.0)


class Part(Enum):
    """What can be reproduced by itself."""

    TABLE1 = "table1"
    TABLE2 = "table2"
    TABLE3 = "table3"
    FIGURE1 = "figure1"
    CONTROLS = "controls"
    CLAIMS = "claims"
    ALL = "all"


Matched = Literal["evaluations", "parameters", "macs"]


@dataclass(frozen=True)
class Cell:
    """One model of the grid.

    Args:
        name: The same for all seeds; unique in a grid.
        about: What it is called in print.
        parts: Where it is a row.
        model: How it is built and trained.
        seed: Of weights, order and augmentation; its teacher has the same.
        teacher: Who teaches it; a residual network, or another student.
        attack: How it is attacked; None if it is not.
        scored: Whether it is scored under other solvers too.
        paper: What the paper reports, clean, in percent.
        tuned: Trainings on a part of the training images, of which the one that is best on the rest decides the rate.
        twin_of: The Neural ODE whose measured evaluations decide the size of a discrete twin.
        matched: In what the twin equals it.
        compared: Name of the cell that it is compared with in the table of controls.
        repeated: Whether it is trained by several seeds where no number of them is asked for.
    """

    name: str
    about: str
    parts: tuple[Part, ...]
    model: TeacherRecipe | StudentRecipe
    seed: int
    teacher: "Cell | None" = None
    attack: RobustnessRecipe | None = None
    scored: bool = False
    paper: float | None = None
    tuned: tuple["Cell", ...] = ()
    twin_of: "Cell | None" = None
    matched: Matched | None = None
    compared: str | None = None
    repeated: bool = False

    @property
    def role(self) -> Role:
        """What it is in its experiment."""
        if isinstance(self.model, TeacherRecipe):
            return Role.TEACHER
        if self.model.twin or self.twin_of is not None:
            return Role.TWIN
        if self.model.t1 == 0:
            return Role.STEM_ONLY
        return Role.UNDISTILLED if self.teacher is None else Role.DISTILLED

    @property
    def needs(self) -> tuple["Cell", ...]:
        """The cells that must be finished before this one is known or can be trained."""
        return tuple(cell for cell in (self.teacher, self.twin_of, *self.tuned) if cell is not None)


def best_cell(dataset: Dataset) -> tuple[int, float]:
    """Return the teacher's depth and the temperature of the best cell of the paper's Table 2: 44, 10 and 110, 3."""
    cells = [(score, depth, T) for T, row in PAPER_DISTILLED[dataset].items() for depth, score in row.items()]
    _, depth, temperature = max(cells)
    return depth, float(temperature)


@dataclass(frozen=True)
class Grid:
    """The paper's cells of one data set at one scale and seed, made when asked for.

    Args:
        dataset: cifar10 or svhn.
        scale: How large.
        seed: Of every training.
    """

    dataset: Dataset
    scale: Scale
    seed: int

    def recipe(self, t1: float = 1.0, depth: int | None = None, temperature: float | None = None) -> Recipe:
        """Return the recipe of a cell; without depth and temperature that of the best."""
        best_depth, best_temperature = best_cell(self.dataset)
        return scaled(self.scale, self.dataset, depth or best_depth, temperature or best_temperature, t1)

    def teacher(self, depth: int) -> Cell:
        """Return a residual network."""
        recipe, best = self.recipe(depth=depth), best_cell(self.dataset)[0]
        return Cell(
            f"resnet{depth}",
            f"ResNet-{depth}",
            (Part.TABLE1, Part.CLAIMS, *((Part.FIGURE1,) if depth == best else ())),
            recipe.teacher,
            self.seed,
            attack=recipe.robustness if depth == best else None,
            paper=PAPER_TEACHERS[self.dataset].get(depth),
        )

    def undistilled(self, t1: float) -> Cell:
        """Return a student trained on labels alone, as the paper does."""
        recipe = self.recipe(t1)
        parts = (Part.TABLE3,) if t1 == HORIZONS[-1] else (Part.TABLE1, Part.FIGURE1)
        return Cell(
            f"node{t1:g}",
            f"NODE({t1:g}), labels",
            (*parts, Part.CLAIMS),
            replace(recipe.student, distillation=None, training=recipe.undistilled),
            self.seed,
            attack=recipe.robustness,
            scored=True,
            repeated=t1 == 1,
            paper=PAPER_UNDISTILLED[self.dataset].get(t1),
        )

    def distilled(self, depth: int, temperature: float) -> Cell:
        """Return a cell of Table 2."""
        recipe, is_best = self.recipe(1.0, depth, temperature), (depth, temperature) == best_cell(self.dataset)
        return Cell(
            f"kd-T{temperature:g}-resnet{depth}",
            f"NODE(1), ResNet-{depth}, T = {temperature:g}",
            (Part.TABLE2, Part.CLAIMS, *((Part.FIGURE1, Part.CONTROLS) if is_best else ())),
            recipe.student,
            self.seed,
            self.teacher(depth),
            attack=recipe.robustness if is_best else None,
            scored=is_best,
            repeated=temperature == best_cell(self.dataset)[1],
            paper=PAPER_DISTILLED[self.dataset][int(temperature)].get(depth),
        )

    def best(self) -> Cell:
        """Return the cell that is the paper's best: most controls differ from it in one thing."""
        return self.distilled(*best_cell(self.dataset))

    def distilled_long(self) -> Cell:
        """Return the distilled NODE(100) of the figure."""
        recipe = self.recipe(LONGER)
        depth, temperature = best_cell(self.dataset)
        return Cell(
            "kd-node100",
            f"NODE(100), ResNet-{depth}, T = {temperature:g}",
            (Part.FIGURE1, Part.CLAIMS, Part.CONTROLS),
            recipe.student,
            self.seed,
            self.teacher(depth),
            attack=recipe.robustness,
            scored=True,
            compared=BY_ADAM,
        )

    def papers_cells(self) -> list[Cell]:
        """Return every cell of the paper's tables and figure, teachers first."""
        teachers = [self.teacher(depth) for depth in DEPTHS]
        taught = [self.distilled(depth, T) for T in TEMPERATURES for depth in DEPTHS]
        longest = HORIZONS if self.dataset is Dataset.CIFAR10 else HORIZONS[:-1]  # the paper has NODE(500) on CIFAR-10 alone
        return [*teachers, *(self.undistilled(t1) for t1 in longest), *taught, self.distilled_long()]


def papers_dataset(name: str) -> Dataset:
    """Return a data set of the paper by name; raises `RecipeError` if it is none."""
    found = next((dataset for dataset in PAPER_DISTILLED if dataset.value == name), None)
    if found is None:
        raise RecipeError(f"--dataset must be cifar10 or svhn, the paper's, got {name!r}. Digits: --scale smoke.")
    return found


def require_part(part: Part, dataset: Dataset) -> None:
    """Raise `RecipeError` if the paper has no such table of a data set."""
    if part is Part.TABLE3 and dataset is not Dataset.CIFAR10:
        raise RecipeError(f"The paper's Table 3 is of CIFAR-10 alone, got --dataset {dataset.value}. Choose cifar10.")
