"""How soon, and for how much arithmetic, does a student reach an accuracy? What do distillation and the equations bring?

    python benchmarks/time_to_accuracy.py --contender "distilled" --data DIR      (each alone on a machine; --seed 1, ...)
    python benchmarks/time_to_accuracy.py                                         only the table and the figure

Every contender may spend the arithmetic of cifar10-faster, teacher included, on a whole schedule of its own, with that
recipe's settings: "distilled" is the recipe, and until it is trained here what `nodestill run cifar10-faster` left in results/
stands for it; "labels alone" needs no teacher; "without equations" has t1 = 0, so that its transitions are all that learns, and
"discrete twin" residual blocks of the same cost, each with its own weights, both distilled. "torchdiffeq" solves the same
equations with torchdiffeq's midpoint steps under bfloat16 autocast, f as it is usually written (time concatenated), and
"discrete net" is that of airbench94; both on labels alone. After each epoch 2,000 test images are scored in float32, after the
last one all of them; this takes no part in the time and chooses nothing. FLOP are counted as 2 per multiply-accumulate, a
backward pass as two forward passes. Minutes say little on a machine that is shared: after each epoch the rate of bare
convolutions is measured too (as `record.py --rate` does), and stands beside them.
"""

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor, nn

from arithmetic import macs_by_epoch, macs_of
from contenders import AsUsual, ByRival
from discrete_net import discrete_net
from equal_cost import table, with_command
from nodestill.data import Dataset, ImageSet, Split, channel_statistics, load_image_set
from nodestill.experiments import recipe_named
from nodestill.experiments.environment import environment
from nodestill.experiments.fit import learn_whitening, refine
from nodestill.experiments.members import build_model
from nodestill.experiments.model_recipes import StudentRecipe, TeacherRecipe
from nodestill.experiments.objective import in_precision_of
from nodestill.experiments.recipe import Recipe
from nodestill.experiments.scoring import scored
from nodestill.models import NeuralODEClassifier
from nodestill.training import (
    EpochRecord,
    Lesson,
    Objective,
    evaluate,
    fabric_for,
    once,
    set_up,
    supervised,
    taught,
    train,
)
from nodestill.training.memory import keep_freed_memory
from record import RESULTS as EXPERIMENTS
from record import convolution_rate
from rows import keep, read, run_script
from time_to_accuracy_figure import draw

OnEpoch = Callable[[EpochRecord], None]
RESULTS = Path(__file__).parent / "results" / "time_to_accuracy.jsonl"
FIGURE = Path(__file__).parent.parent / "docs" / "images" / "time-to-accuracy.png"
TAUGHT = ("distilled", "without equations", "discrete twin")
ON_LABELS = ("labels alone", "torchdiffeq", "discrete net")
_ON_THE_WAY = 2000  # test images after each epoch but the last


class ThroughTorchdiffeq(nn.Module):
    """A Neural ODE classifier whose equations are solved by torchdiffeq, with as many midpoint steps."""

    def __init__(self, model: NeuralODEClassifier) -> None:
        super().__init__()
        self.model = model
        self.fields = nn.ModuleList(ByRival(AsUsual(f)) for _, f in model.equations)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        from torchdiffeq import odeint

        y, times = images, torch.tensor([0.0, self.model.t1])
        options = {"step_size": self.model.t1 / (self.model.solver.steps or 1)}
        for (layer, _), f in zip(self.model.equations, self.fields, strict=True):
            y = odeint(f, layer(y).float(), times, method="midpoint", options=options)[-1]
        return self.model.head(y)


@dataclass
class Spent:
    """What a training has cost so far."""

    seconds: float = 0.0
    flop: float = 0.0

    def add(self, seconds: float, flop: float) -> None:
        """Add an epoch."""
        self.seconds += seconds
        self.flop += flop


def ours(model: nn.Module) -> nn.Module:
    """Return the model of ours that torchdiffeq solves, or the model itself."""
    return model.model if isinstance(model, ThroughTorchdiffeq) else model


def flop_by_epoch(model: nn.Module, recipe: StudentRecipe | TeacherRecipe, images: ImageSet) -> list[float]:
    """Return the arithmetic of each epoch of training on labels."""
    return [6 * each * len(images) for each in macs_by_epoch(ours(model), recipe, shape_of(images))]


def shape_of(images: ImageSet) -> tuple[int, int, int]:
    """Return the shape of an image."""
    _, height, width = images.images.shape[1:]
    return 3, height, width


def built(recipe: StudentRecipe | TeacherRecipe, images: ImageSet, seed: int) -> nn.Module:
    """Return a fresh model that knows its training images as far as they are not learned."""
    model = build_model(recipe, seed, images.num_classes, *channel_statistics(images))
    learn_whitening(model, images)
    return model


def fit(
    model: nn.Module,
    objective: Callable[[nn.Module], Objective],
    images: ImageSet,
    recipe: StudentRecipe | TeacherRecipe,
    seed: int,
    each: OnEpoch,
) -> None:
    """Train a model for a whole schedule; `each` is called after every epoch, with its record, while all steps are taken."""
    plan = recipe.training

    def on_epoch(record: EpochRecord) -> None:
        refine(ours(model), recipe, plan.epochs)
        each(record)
        refine(ours(model), recipe, record.epoch)

    keep_freed_memory()  # as the command does, for every contender alike
    refine(ours(model), recipe, 0)
    fabric = fabric_for("cpu", precision=plan.precision)
    learner = set_up(model, plan, fabric)
    train(learner, in_precision_of(fabric, objective(learner.model)), images, plan, seed=seed, on_epoch=on_epoch)


def contender(name: str, student: StudentRecipe, images: ImageSet, seed: int) -> nn.Module:
    """Return a model to be trained."""
    match name:
        case "without equations":
            return built(replace(student, t1=0.0), images, seed)
        case "discrete twin":
            return built(replace(student, twin=True), images, seed)
        case "torchdiffeq":
            return ThroughTorchdiffeq(built(student, images, seed))
        case "discrete net":
            torch.manual_seed(seed)
            model = discrete_net(images.num_classes, *channel_statistics(images))
            learn_whitening(model, images)
            return model
        case _:
            return built(student, images, seed)


def flop_of_teacher(recipe: Recipe, teacher: nn.Module, images: ImageSet) -> float:
    """Return the arithmetic of training a teacher and of asking it once for each image, and for its mirror image."""
    views = 2 if recipe.student.training.augment.flip else 1
    asking = 2 * views * macs_of(teacher, shape_of(images)) * len(images)
    return sum(flop_by_epoch(teacher, recipe.teacher, images)) + asking


def budget(recipe: Recipe, images: ImageSet) -> float:
    """Return the arithmetic of a distilled student and its teacher."""
    teacher, student = (built(part, images, 0) for part in (recipe.teacher, recipe.student))
    return flop_of_teacher(recipe, teacher, images) + sum(flop_by_epoch(student, recipe.student, images))


def teachers_lesson(recipe: Recipe, images: ImageSet, seed: int, spent: Spent) -> Lesson:
    """Return what a teacher says that is trained for it now, and add what both cost."""
    teacher, since, smoothing = built(recipe.teacher, images, seed), perf_counter(), recipe.teacher.training.label_smoothing
    spent.flop += flop_of_teacher(recipe, teacher, images)

    def each(record: EpochRecord) -> None:
        print(f"teacher: epoch {record.epoch}, loss {record.loss:.3f}, {record.seconds:.0f} s", flush=True)

    fit(teacher, lambda model: supervised(model, label_smoothing=smoothing), images, recipe.teacher, seed, each)
    lesson = once(teacher, images, mirrored=recipe.student.training.augment.flip)
    spent.seconds += perf_counter() - since
    return lesson


def objective(recipe: StudentRecipe, lesson: Lesson | None) -> Callable[[nn.Module], Objective]:
    """Return what is minimised, as a function of the model: with a lesson, that of the recipe; without, its part on labels."""
    smoothing, settings = recipe.training.label_smoothing, recipe.distillation
    if lesson is None or settings is None:
        return lambda model: supervised(model, label_smoothing=smoothing)
    weights = {"temperature": settings.temperature, "kd_weight": settings.kd_weight, "label_smoothing": smoothing}
    return lambda model: taught(model, lesson, **weights)


def affordable(model: nn.Module, recipe: StudentRecipe, images: ImageSet, flop: float) -> StudentRecipe:
    """Return a recipe of as many epochs as cost nearest to so much, at least one; those that are cheap come first and stay."""
    by_epoch = flop_by_epoch(model, recipe, images)
    spared = sum(by_epoch[-1] - each for each in by_epoch)
    epochs = max(1, round((flop + spared) / by_epoch[-1]))
    return replace(recipe, training=replace(recipe.training, epochs=epochs))


def measure(name: str, recipe: Recipe, data: Path, seed: int) -> None:
    """Train a contender and keep a row for every epoch."""
    images, test = (load_image_set(Dataset.CIFAR10, split, data) for split in (Split.TRAIN, Split.TEST))
    spent = Spent()
    lesson = teachers_lesson(recipe, images, seed, spent) if name in TAUGHT else None
    model = contender(name, recipe.student, images, seed)
    student = affordable(model, recipe.student, images, budget(recipe, images) - spent.flop)
    plan, flop = student.training, flop_by_epoch(model, student, images)
    rows: list[dict] = []

    def each(record: EpochRecord) -> None:
        spent.add(record.seconds, flop[record.epoch - 1])
        found = evaluate(scored(model.eval()), test if record.epoch == plan.epochs else test.first(_ON_THE_WAY), 500)
        row = {"contender": name, "seed": seed, "epochs": plan.epochs, "epoch": record.epoch, "taught": lesson is not None}
        row |= {"seconds": spent.seconds, "flop": spent.flop, "loss": found.loss, "images": found.images}
        row |= {"gflops": statistics.median(convolution_rate(repeats=5))}
        row |= {"accuracy": found.accuracy, "low": found.accuracy_low, "high": found.accuracy_high}
        rows.append(row | {"data": test.provenance, "environment": environment(torch.device("cpu"))})
        print(row, flush=True)
        keep(rows, RESULTS, ("contender", "seed", "epoch"))

    fit(model, objective(student, lesson), images, student, seed, each)


def main() -> None:
    """Parse, train, keep, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contender", choices=(*TAUGHT, *ON_LABELS))
    parser.add_argument("--data", type=Path, help="folder with cifar10/{train,test}.parquet")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.contender is not None:
        if options.data is None:
            parser.error("--data is needed to measure")
        measure(options.contender, recipe_named("cifar10-faster"), options.data, options.seed)
    rows = with_command(read(RESULTS), EXPERIMENTS / "cifar10-faster")
    print(table(rows))
    draw(rows, FIGURE)


if __name__ == "__main__":
    run_script(main)
