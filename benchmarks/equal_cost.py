"""What do distillation and the differential equation bring at equal cost?

    python benchmarks/equal_cost.py --data DIR --seeds 0 1 2
    python benchmarks/equal_cost.py --table

The student of cifar10-faster in four ways, each for as much arithmetic as the distilled one costs with its teacher: distilled;
on labels alone, for more epochs, as it needs no teacher; without its equations (t1 = 0), distilled, for many more; and its
discrete twin, distilled. Models are kept in benchmarks/.models, so that what is done is not done again. FLOP are 2 per
multiply-accumulate, a backward pass counts as two forward passes.
"""

import argparse
import statistics
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from nodestill.data import Dataset, ImageSet, Split, identify, load_image_set
from nodestill.experiments import Recipe, Role, Store, StudentRecipe, TeacherRecipe, recipe_named
from nodestill.experiments.environment import environment
from nodestill.experiments.fit import Job, train_member
from nodestill.experiments.members import Member
from rows import keep, markdown, read
from time_to_accuracy import built, macs_of

RESULTS = Path(__file__).parent / "results" / "equal_cost.jsonl"
MODELS = Path(__file__).parent / ".models" / "equal_cost"


class Way(NamedTuple):
    """A student and what it costs."""

    name: str
    role: Role
    student: StudentRecipe
    flop: float  # with its teacher


def training_flop(recipe: StudentRecipe | TeacherRecipe, images: ImageSet, epochs: int) -> float:
    """Return the arithmetic of a training on labels."""
    return 6 * macs_of(built(recipe, images.first(1000), 0), images) * len(images) * epochs


def ways(recipe: Recipe, images: ImageSet) -> list[Way]:
    """Return the students, with as many epochs each as come nearest to the budget."""
    student, teacher = recipe.student, recipe.teacher
    of_teacher = training_flop(teacher, images, teacher.training.epochs)
    pass_once = training_flop(teacher, images, 1) / 3  # the teacher's forward passes over all images
    is_once, views = student.distillation.once, 2 if student.training.augment.flip else 1
    lessons, of_teacher = (0.0, of_teacher + views * pass_once) if is_once else (pass_once, of_teacher)
    budget = of_teacher + (training_flop(student, images, 1) + lessons) * student.training.epochs
    asked = {
        "distilled": (Role.DISTILLED, student),
        "labels alone": (Role.UNDISTILLED, replace(student, distillation=None)),
        "without equations": (Role.STEM_ONLY, replace(student, t1=0.0)),
        "discrete twin": (Role.TWIN, replace(student, twin=True)),
    }
    found = []
    for name, (role, model) in asked.items():
        taught = model.distillation is not None
        each = training_flop(model, images, 1) + (lessons if taught else 0.0)
        epochs = max(1, round((budget - (of_teacher if taught else 0.0)) / each))
        model = replace(model, training=replace(model.training, epochs=epochs))
        found.append(Way(name, role, model, epochs * each + (of_teacher if taught else 0.0)))
    return found


def measure(recipe: Recipe, data: Path, seed: int) -> list[dict]:
    """Train all ways that are not trained yet, and return a row for each."""
    train, test = (load_image_set(Dataset.CIFAR10, split, data) for split in (Split.TRAIN, Split.TEST))
    identity, store = identify(Dataset.CIFAR10, data), Store(MODELS)
    teacher, rows = Member(Role.TEACHER, recipe.teacher, recipe.dataset.value, identity, seed), []

    def trained(member: Member) -> tuple[dict, float]:
        job = Job(member, teacher if member.teacher else None, store, train, test, 0, _say)
        if not job.folder.is_done:
            train_member(job, "cpu", 1)
        return job.folder.read("evaluation.json")["clean"], sum(r["seconds"] for r in job.folder.rows("training.jsonl"))

    found, of_teacher = trained(teacher)
    for way in ways(recipe, train):
        taught_by = teacher.folder if way.student.distillation is not None else None
        clean, seconds = trained(Member(way.role, way.student, recipe.dataset.value, identity, seed, taught_by))
        row = {"way": way.name, "seed": seed, "epochs": way.student.training.epochs, "flop": way.flop}
        row |= {"seconds": seconds + (of_teacher if taught_by else 0.0), "teacher_accuracy": found["accuracy"]}
        row |= {"accuracy": clean["accuracy"], "low": clean["accuracy_low"], "high": clean["accuracy_high"]}
        rows.append(row | {"data": test.provenance, "environment": environment(torch.device("cpu"))})
        print(rows[-1], flush=True)
        keep(rows, RESULTS, ("way", "seed"))
    return rows


def _say(task: str, done: int, total: int, note: str) -> None:
    if note:
        print(f"{task}: {done} of {total} steps, {note}", flush=True)


def table(rows: list[dict]) -> str:
    """Return mean and range over seeds of each way, and the mean difference to the distilled student of the same seed."""
    distilled = {row["seed"]: row["accuracy"] for row in rows if row["way"] == "distilled"}
    lines = [["Way", "Seeds", "Epochs", "PFLOP", "Minutes", "Accuracy", "Range", "Minus distilled"], ["---", *["---:"] * 7]]
    for way in dict.fromkeys(row["way"] for row in rows):
        own = [row for row in rows if row["way"] == way]
        shares = [100 * row["accuracy"] for row in own]
        gaps = [100 * (row["accuracy"] - distilled[row["seed"]]) for row in own if row["seed"] in distilled]
        minutes, flop = (statistics.mean(row[key] for row in own) for key in ("seconds", "flop"))
        figures = [str(len(own)), str(own[0]["epochs"]), f"{flop / 1e15:.2f}", f"{minutes / 60:.1f}"]
        spread = f"{min(shares):.2f} to {max(shares):.2f}"
        lines.append([way, *figures, f"{statistics.mean(shares):.2f}", spread, f"{statistics.mean(gaps):+.2f}" if gaps else ""])
    return markdown(lines)


def main() -> None:
    """Parse, train, keep, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with cifar10/{train,test}.parquet")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--table", action="store_true", help="only print the table of what was measured before")
    options = parser.parse_args()
    if not options.table:
        if options.data is None:
            parser.error("--data is needed to measure")
        for seed in options.seeds:
            measure(recipe_named("cifar10-faster"), options.data, seed)
    print(table(read(RESULTS)))


if __name__ == "__main__":
    main()
