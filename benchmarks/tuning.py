"""What does a lever of the fast recipes bring? Tried on a split of the training images; test images are never seen.

    python benchmarks/tuning.py --data DIR --label "lr 0.1" --student.training.lr 0.1
    python benchmarks/tuning.py --table

Trains the student of a fast recipe, changed as on the command line of `nodestill run`, on labels alone, on the first --images
of the training part, for --epochs epochs with a whole schedule, and scores it on the 5,000 images of the validation part:
under its own solver, under one of four times as many steps, and without its equations. One thread, so that two may run side by
side on two cores; speeds are therefore only rough.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from arithmetic import macs_of
from nodestill.data import Dataset, Split, load_image_set
from nodestill.experiments import asked_recipe, to_plain
from nodestill.experiments.environment import environment
from nodestill.experiments.scoring import scored
from nodestill.models import NeuralODEClassifier
from nodestill.training import EpochRecord, evaluate, supervised
from rows import keep, markdown, read, run_script
from time_to_accuracy import built, fit, shape_of

RESULTS = Path(__file__).parent / "results" / "tuning.jsonl"
_FINER = 4


def measure(options: argparse.Namespace, overrides: list[str]) -> dict:
    """Train, score, and return a row."""
    epochs = ["--student.training.epochs", str(options.epochs), "--student.training.compiled", "false"]
    student = asked_recipe(options.recipe, [*epochs, *overrides]).student
    parts = (load_image_set(Dataset.CIFAR10, split, options.data) for split in (Split.TRAIN_PART, Split.VALIDATION))
    if student.solver.steps is None:
        raise SystemExit("Only solvers of fixed steps are tuned here: a finer one is one of four times as many steps.")
    images, held_out = next(parts).first(options.images), next(parts)
    model, records = built(student, images, seed=0), []

    def each(record: EpochRecord) -> None:
        records.append(record)
        print(f"epoch {record.epoch}: loss {record.loss:.3f}, {record.seconds:.0f} s", flush=True)

    smoothing = student.training.label_smoothing
    fit(model, lambda net: supervised(net, label_smoothing=smoothing), images, student, 0, each)
    row = {"label": options.label, "images": len(images), "epochs": options.epochs, "macs": macs_of(model, shape_of(images))}
    row |= {"images_per_second": len(images) / min(record.seconds for record in records), "loss": records[-1].loss}
    row |= {name: evaluate(net, held_out, 250).accuracy for name, net in _variants(model).items()}
    return row | {"student": to_plain(student), "environment": environment(torch.device("cpu"))}


def _variants(model: nn.Module) -> dict[str, Callable[[Tensor], Tensor]]:
    own = scored(model.eval())
    if not isinstance(own, NeuralODEClassifier) or own.t1 == 0:
        return {"accuracy": own}
    finer = own.with_solver(replace(own.solver, steps=_FINER * own.solver.steps))
    variants = {"accuracy": own, "finer": finer, "no_equation": own.with_solver(own.solver, t1=0.0)}
    return {name: lambda images, net=net: net.predict(images, raises=False).logits for name, net in variants.items()}


def table(rows: list[dict]) -> str:
    """Return what each lever brought."""
    heads = ["Lever", "MMAC", "Images/s", "Accuracy", "Four times finer", "Without equations"]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for row in rows:
        shares = [f"{100 * row[key]:.1f}" if row.get(key) is not None else "–" for key in ("accuracy", "finer", "no_equation")]
        lines.append([row["label"], f"{row['macs'] / 1e6:.0f}", f"{row['images_per_second']:.0f}", *shares])
    return markdown(lines)


def main() -> None:
    """Parse, measure, keep, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with cifar10/{train,test}.parquet")
    parser.add_argument("--recipe", default="cifar10-fast")
    parser.add_argument("--label", default="as it is")
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--table", action="store_true", help="only print the table of what was measured before")
    options, overrides = parser.parse_known_args()
    if not options.table:
        if options.data is None:
            parser.error("--data is needed to measure")
        torch.set_num_threads(1)
        keep([measure(options, overrides)], RESULTS, ("label", "images", "epochs"))
    print(table(read(RESULTS)))


if __name__ == "__main__":
    run_script(main)
