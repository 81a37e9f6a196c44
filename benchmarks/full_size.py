"""What would the trainings cost that need a GPU? Some steps of each at full size on this machine, and what they come to.

    python benchmarks/full_size.py --data DIR --model "NODE(1)"       (one or all; alone on a machine)
    python benchmarks/full_size.py                                    only the table

The paper's models are those of `nodestill reproduce --scale paper`: 512 channels, dopri5 at 1e-3, float32. "cifar10-gpu" and
"svhn-fast" are the students of these recipes, uncompiled. Each takes --steps steps of --images images on labels; all but the
first count. FLOP are 2 per multiply-accumulate, a backward pass as two forward passes (recomputed steps are in the time and not
in the FLOP). Evaluations of f are those of fresh weights: trained equations may need more. Epochs are of whole images and all
steps, as many as cost the same as those of the recipe.
"""

import argparse
import statistics
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from arithmetic import macs_of, whole_epochs
from nodestill.data import Dataset, ImageSet, Split, count_images, load_image_set
from nodestill.experiments import recipe_named
from nodestill.experiments.environment import environment
from nodestill.experiments.model_recipes import StudentRecipe, TeacherRecipe
from nodestill.models import NeuralODEClassifier
from nodestill.reproduction import asked_reproduction
from nodestill.training import EpochRecord, supervised
from rows import keep, markdown, read, run_script
from time_to_accuracy import built, fit, shape_of

RESULTS = Path(__file__).parent / "results" / "full_size.jsonl"
_CELLS = {"ResNet-44": "resnet44", "NODE(1)": "kd-T10-resnet44", "NODE(100)": "kd-node100", "NODE(500)": "node500"}
_RECIPES = ("cifar10-gpu", "svhn-fast")


@dataclass(frozen=True)
class Subject:
    """A training at full size."""

    dataset: Dataset
    model: TeacherRecipe | StudentRecipe


def subject(name: str) -> Subject:
    """Return the training of a name."""
    if name in _RECIPES:
        recipe = recipe_named(name)
        training = replace(recipe.student.training, compiled=False)
        return Subject(recipe.dataset, replace(recipe.student, training=training))
    cells = asked_reproduction("all", "cifar10", "paper", 1).all_cells()
    return Subject(Dataset.CIFAR10, next(cell.model for cell in cells if cell.name == _CELLS[name]))


def evaluations_of(model: torch.nn.Module, images: ImageSet) -> float | None:
    """Return the mean number of calls of f of fresh weights."""
    if not isinstance(model, NeuralODEClassifier):
        return None
    with torch.no_grad():
        return float(model.eval().predict(next_images(images)).evaluations.double().mean())


def next_images(images: ImageSet) -> torch.Tensor:
    """Return eight images in [0, 1]."""
    return images.at(torch.arange(min(8, len(images)))).images


def shortened(model: TeacherRecipe | StudentRecipe, count: int, steps: int) -> TeacherRecipe | StudentRecipe:
    """Return a recipe of a few steps, an epoch each, of whole images and by all steps of the solver."""
    plan = replace(model.training, batch_size=count, epochs=steps, sides=())
    return replace(model, training=plan, **({"coarse_epochs": 0} if isinstance(model, StudentRecipe) else {}))


def measure(name: str, data: Path, count: int, steps: int) -> dict:
    """Take some steps, an epoch each, and return a row."""
    what = subject(name)
    whole = count_images(what.dataset, data)
    images = load_image_set(what.dataset, Split.TRAIN, data).first(count)
    model, short = built(what.model, images, seed=0), shortened(what.model, count, steps)
    shape, smoothing = shape_of(images), short.training.label_smoothing
    macs, calls, seconds = macs_of(model, shape), evaluations_of(model, images), []

    def each(record: EpochRecord) -> None:
        seconds.append(record.seconds)
        print(f"{name}: {record.seconds:.1f} s", flush=True)

    fit(model, lambda net: supervised(net, label_smoothing=smoothing), images, short, 0, each)
    row = {"model": name, "images": len(images), "steps": steps, "macs": macs, "evaluations": calls}
    row |= {"seconds": seconds[1:], "epochs": whole_epochs(what.model, shape, images.num_classes), "train_images": whole.train}
    return row | {"data": images.provenance, "environment": environment(torch.device("cpu"))}


def table(rows: list[dict]) -> str:
    """Return what each training costs, and for how long this machine would work on it."""
    heads = ["Model", "NFE", "GMAC an image", "Images/s", "Range", "GFLOP/s", "Images", "Epochs", "PFLOP", "Days here"]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for row in rows:
        rates = [row["images"] / second for second in row["seconds"]]
        rate, views = statistics.median(rates), row["train_images"] * row["epochs"]
        cells = ["–" if row["evaluations"] is None else f"{row['evaluations']:.1f}", f"{row['macs'] / 1e9:.3g}", f"{rate:.3g}"]
        cells += [f"{min(rates):.3g} to {max(rates):.3g}", f"{6 * row['macs'] * rate / 1e9:.0f}", f"{row['train_images']:,}"]
        cells += [f"{row['epochs']:g}", f"{6 * row['macs'] * views / 1e15:.3g}", f"{views / rate / 86_400:.2g}"]
        lines.append([row["model"], *cells])
    return markdown(lines)


def main() -> None:
    """Parse, measure, keep, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with cifar10/ and svhn/{train,test}.parquet")
    parser.add_argument("--model", choices=(*_CELLS, *_RECIPES), action="append", help="several times for several")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--steps", type=int, default=4)
    options = parser.parse_args()
    if options.steps < 2:
        parser.error("--steps must be at least 2: the first does not count")
    if options.data is not None:
        for name in options.model or (*_CELLS, *_RECIPES):
            keep([measure(name, options.data, options.images, options.steps)], RESULTS, ("model",))
    print(table(read(RESULTS)))


if __name__ == "__main__":
    run_script(main)
