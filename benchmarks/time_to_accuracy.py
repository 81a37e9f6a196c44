"""How soon, and for how much arithmetic, does a student reach an accuracy?

    python benchmarks/time_to_accuracy.py --contender "ours" --epochs 9 --data DIR      (each alone on a machine)
    python benchmarks/time_to_accuracy.py --figure

All contenders have the recipe, the first layers, the head, the batches and the schedule of cifar10-faster, a whole schedule
of --epochs epochs each, and no teacher unless they say so. "ours" is trained as the recipe says; "torchdiffeq"
solves the same equations with torchdiffeq's midpoint steps under bfloat16 autocast, f as it is usually written (time
concatenated); the discrete twin has residual blocks of the same cost, each with its own weights. After each epoch the whole
test set is scored in float32; this takes no part in the time, and chooses nothing. FLOP are counted as 2 per
multiply-accumulate, a backward pass as two forward passes; compiling and the training of a teacher take part.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor, nn

from contenders import AsUsual, ByRival
from nodestill.data import Dataset, ImageSet, Split, channel_statistics, load_image_set
from nodestill.experiments import recipe_named
from nodestill.experiments.environment import environment
from nodestill.experiments.fit import in_precision_of, learn_whitening
from nodestill.experiments.members import build_model
from nodestill.experiments.recipe import Recipe, StudentRecipe, TeacherRecipe
from nodestill.experiments.scoring import scored
from nodestill.models import NeuralODEClassifier, forward_macs, macs
from nodestill.training import (
    EpochRecord,
    Lesson,
    Objective,
    Training,
    evaluate,
    fabric_for,
    live,
    once,
    set_up,
    supervised,
    taught,
    train,
)
from rows import keep, read
from time_to_accuracy_figure import draw

OnEpoch = Callable[[EpochRecord], None]
RESULTS = Path(__file__).parent / "results" / "time_to_accuracy.jsonl"
FIGURE = Path(__file__).parent.parent / "docs" / "images" / "time-to-accuracy.png"
CONTENDERS = ("ours", "ours, distilled", "ours, compiled", "torchdiffeq", "torchdiffeq, our f", "discrete twin")


class ThroughTorchdiffeq(nn.Module):
    """A Neural ODE classifier whose equations are solved by torchdiffeq, with as many midpoint steps."""

    def __init__(self, model: NeuralODEClassifier, *, as_usual: bool) -> None:
        super().__init__()
        self.model = model
        self.fields = nn.ModuleList(ByRival(AsUsual(f) if as_usual else f) for _, f in model.equations)

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

    flop_per_image: float
    seconds: float = 0.0
    flop: float = 0.0

    def add(self, seconds: float, images: int) -> None:
        """Add an epoch."""
        self.seconds += seconds
        self.flop += self.flop_per_image * images


def macs_of(model: nn.Module, images: ImageSet) -> float:
    """Return the multiply-accumulates of one image, forward."""
    shape = tuple(images.images.shape[1:])
    if not isinstance(model, NeuralODEClassifier):
        return macs(model, torch.zeros(1, *shape))
    with torch.no_grad():
        calls = model.eval().predict(torch.zeros(1, *shape)).evaluations_by_equation[0].tolist()
    return forward_macs(model, shape, calls).total


def built(recipe: StudentRecipe | TeacherRecipe, images: ImageSet, seed: int) -> nn.Module:
    """Return a fresh model that knows its training images as far as they are not learned."""
    model = build_model(recipe, seed, images.num_classes, *channel_statistics(images))
    learn_whitening(model, images)
    return model


def fit(
    model: nn.Module, objective: Callable[[nn.Module], Objective], images: ImageSet, plan: Training, seed: int, each: OnEpoch
) -> None:
    """Train a model for a whole schedule; `each` is called after every epoch, with its record."""
    fabric = fabric_for("cpu", precision=plan.precision)
    learner = set_up(model, plan, fabric)
    train(learner, in_precision_of(fabric, objective(learner.model)), images, plan, seed=seed, on_epoch=each)


def contender(name: str, recipe: Recipe, images: ImageSet, seed: int) -> tuple[nn.Module, Training]:
    """Return a model and how it is trained."""
    student, plan = recipe.student, recipe.student.training
    if name == "discrete twin":
        return built(replace(student, twin=True), images, seed), plan
    model = built(student, images, seed)
    if name.startswith("torchdiffeq"):
        return ThroughTorchdiffeq(model, as_usual="our f" not in name), replace(plan, compiled=False)
    return model, replace(plan, compiled=name == "ours, compiled")


def measure(name: str, recipe: Recipe, data: Path, seed: int) -> None:
    """Train a contender and keep a row for every epoch."""
    images, test = (load_image_set(Dataset.CIFAR10, split, data) for split in (Split.TRAIN, Split.TEST))
    model, plan = contender(name, recipe, images, seed)
    counted = model.model if isinstance(model, ThroughTorchdiffeq) else model
    spent = Spent(flop_per_image=6 * macs_of(counted, images))
    smoothing, settings = plan.label_smoothing, recipe.student.distillation
    if name == "ours, distilled":
        teacher = trained_teacher(recipe.teacher, images, seed, spent)
        lesson = _lesson(teacher, images, plan, spent, is_once=settings.once)
        weights = {"temperature": settings.temperature, "kd_weight": settings.kd_weight, "label_smoothing": smoothing}
        goal = lambda student: taught(student, lesson, **weights)  # noqa: E731
    else:
        goal = lambda student: supervised(student, label_smoothing=smoothing)  # noqa: E731
    rows: list[dict] = []

    def each(record: EpochRecord) -> None:
        spent.add(record.seconds, len(images))
        found = evaluate(scored(model.eval()), test, 500)
        rows.append({"contender": name, "seed": seed, "epochs": plan.epochs, "epoch": record.epoch, "seconds": spent.seconds})
        rows[-1] |= {"flop": spent.flop, "accuracy": found.accuracy, "loss": found.loss, "data": test.provenance}
        rows[-1] |= {"environment": environment(torch.device("cpu"))}
        print({key: rows[-1][key] for key in ("contender", "epoch", "seconds", "accuracy")}, flush=True)
        keep(rows, RESULTS, ("contender", "seed", "epochs", "epoch"))

    fit(model, goal, images, plan, seed, each)


def _lesson(teacher: nn.Module, images: ImageSet, plan: Training, spent: Spent, *, is_once: bool) -> Lesson:
    """Return what the teacher says, and add what it costs to ask: once for each image, or on every view."""
    asking = 2 * macs_of(teacher, images)
    if not is_once:
        spent.flop_per_image += asking
        return live(teacher)
    since = perf_counter()
    lesson = once(teacher, images, mirrored=plan.augment.flip)
    spent.seconds += perf_counter() - since
    spent.flop += asking * len(images) * (2 if plan.augment.flip else 1)
    return lesson


def trained_teacher(recipe: TeacherRecipe, images: ImageSet, seed: int, spent: Spent) -> nn.Module:
    """Return a trained teacher, and add what it cost."""
    teacher, plan = built(recipe, images, seed), recipe.training
    flop = 6 * macs_of(teacher, images)

    def each(record: EpochRecord) -> None:
        spent.seconds += record.seconds
        spent.flop += flop * len(images)
        print(f"teacher: epoch {record.epoch}, loss {record.loss:.3f}, {record.seconds:.0f} s", flush=True)

    fit(teacher, lambda model: supervised(model, label_smoothing=plan.label_smoothing), images, plan, seed, each)
    return teacher


def main() -> None:
    """Parse, train, keep, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contender", choices=CONTENDERS)
    parser.add_argument("--data", type=Path, help="folder with cifar10/{train,test}.parquet")
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--figure", action="store_true", help="only draw what was measured before")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if not options.figure:
        if options.contender is None or options.data is None:
            parser.error("--contender and --data are needed to measure")
        recipe = recipe_named("cifar10-faster")
        plan = replace(recipe.student.training, epochs=options.epochs)
        recipe = replace(recipe, student=replace(recipe.student, training=plan))
        measure(options.contender, recipe, options.data, options.seed)
    draw(read(RESULTS), FIGURE)


if __name__ == "__main__":
    main()
