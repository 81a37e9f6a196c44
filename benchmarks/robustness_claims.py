"""What do the paper's claims about robustness come to, on students trained here?

    python benchmarks/robustness_claims.py --data DIR [--images 128]
    python benchmarks/robustness_claims.py --table

The models are those of `attacked_models.py`: 64 channels and minutes of training. Small: they show mechanisms, not the paper's
accuracies. Each is attacked by the paper's PGD and MI-FGSM, and by variants that change one thing; an image counts as robust if
it is right and both attacks' last iterates are, on the model as deployed.

- exact: gradients of the steps that were taken.
- adjoint: gradients of the continuous adjoint equation, at the tolerance of the solve.
- rescaled: the horizon made 1 and f multiplied by it; the same function, attacked and scored as such.
- normalised: the radius counted in units of the colours' deviation, about a quarter of what it claims.
- sound: the worst case over PGD, MI-FGSM, Auto-PGD, minimum norm and Square.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import torch
from torch import Tensor

from attacked_models import PAIR, attacked_model, names
from nodestill.attacks import (
    ALL_ATTACKS,
    AttackName,
    Hunt,
    LinfBudget,
    LogitsFn,
    hunt_down,
    mi_fgsm,
    paper_budget,
    pgd,
    predictions,
    start,
)
from nodestill.data import Batch, Dataset, ImageSet, Split, load_image_set
from nodestill.experiments.environment import environment
from nodestill.models import NeuralODEClassifier, Normalize
from nodestill.ode.solver import failures
from nodestill.subjects.of_model import subject_of_model
from rows import keep, markdown, read, run_script

RESULTS = Path(__file__).parent / "results" / "robustness_claims.jsonl"
RADII = (1, 2, 4, 8, 16, 20)
VARIANTS = ("exact", "adjoint", "rescaled", "normalised", "sound")
OF_PAIR = ("exact", "sound")  # the variants that the pair is for
_KEYS = ("model", "variant", "images")
_BATCH = 64


class Left(NamedTuple):
    """Who survives at each radius, and the evaluations of f that the images of the widest radius cost."""

    robust: dict[int, list[bool]]
    evaluations: list[int]
    failed: int  # solves that did not arrive


def robust_under(along: LogitsFn, deployed: LogitsFn, batch: Batch, budget: LinfBudget) -> tuple[Tensor, Tensor]:
    """Return which images both attacks leave right, as deployed, when gradients are taken along another function.

    And the images that PGD made.
    """
    left = torch.ones_like(batch.labels, dtype=torch.bool)
    results = [mi_fgsm(along, batch.images, batch.labels, budget)]
    results.append(pgd(along, batch.images, batch.labels, budget, keys=batch.index))
    for result in results:
        with torch.no_grad():
            left &= predictions(deployed(result.images)) == batch.labels
    return left, results[-1].images


def by_the_paper(model: NeuralODEClassifier, variant: str, data: ImageSet) -> Left:
    """Attack with the paper's two attacks."""
    subject = subject_of_model(model)
    along, deployed = subject.logits, subject.logits
    if variant == "adjoint":
        along = subject.gradient_paths["adjoint"]
    if variant == "rescaled":
        along = deployed = subject.horizon_rescaled or deployed
    budget = _in_deviations(model) if variant == "normalised" else paper_budget
    left = Left({eps: [] for eps in RADII}, [], 0)
    for places in torch.arange(len(data)).split(_BATCH):
        batch = data.at(places)
        for eps in RADII:
            survives, images = robust_under(along, deployed, batch, budget(eps))
            left.robust[eps].extend(survives.tolist())
        left = _with_cost(left, model, images)
    return left


def _in_deviations(model: NeuralODEClassifier) -> Callable[[int], LinfBudget]:
    """Return the paper's budgets with the radius, not the steps, counted in units of the colours' deviation."""
    scale = float(next(layer for layer in model.modules() if isinstance(layer, Normalize)).std.mean())
    return lambda eps: LinfBudget(round(eps * scale), steps=paper_budget(eps).steps)


def _with_cost(left: Left, model: NeuralODEClassifier, images: Tensor) -> Left:
    with torch.no_grad():
        solved = model.predict(images, raises=False)
    failed = int(failures(solved.solutions[0].status).sum())
    return left._replace(evaluations=[*left.evaluations, *solved.evaluations.tolist()], failed=left.failed + failed)


def worst_case(model: NeuralODEClassifier, data: ImageSet) -> Left:
    """Attack with everything that needs no other model."""
    hunt = Hunt(subject_of_model(model), data, _BATCH)
    state = start(hunt)
    for row in hunt_down(hunt, [a for a in ALL_ATTACKS if a is not AttackName.TRANSFER], RADII, state=state):
        state = state.after(row)
    return Left({eps: state.robust(eps).tolist() for eps in RADII}, [], 0)


def measure(name: str, model: NeuralODEClassifier, variant: str, data: ImageSet) -> dict:
    """Attack one model in one way. Who is right, and who survives, is written image by image, as ones and zeros."""
    since = perf_counter()
    clean, right = _clean(model, data)
    left = worst_case(model, data) if variant == "sound" else by_the_paper(model, variant, data)
    robust = {eps: torch.tensor(survives) & right for eps, survives in left.robust.items()}
    return {
        "model": name,
        "variant": variant,
        "images": len(data),
        "right": _bits(right),
        "robust": {eps: _bits(survives) for eps, survives in robust.items()},
        "labels": data.labels.tolist(),
        "clean_evaluations": clean,
        "evaluations": left.evaluations,
        "failed": left.failed,
        "seconds": perf_counter() - since,
        "data": data.provenance,
        "environment": environment(torch.device("cpu")),
    }


def _clean(model: NeuralODEClassifier, data: ImageSet) -> tuple[list[int], Tensor]:
    """Return the evaluations of each clean image, and which are right."""
    evaluations, right = [], []
    for places in torch.arange(len(data)).split(_BATCH):
        batch = data.at(places)
        with torch.no_grad():
            solved = model.predict(batch.images)
        evaluations += solved.evaluations.tolist()
        right.append(predictions(solved.logits) == batch.labels)
    return evaluations, torch.cat(right)


def _bits(which: Tensor) -> str:
    return "".join(str(int(one)) for one in which)


def table(rows: list[dict]) -> str:
    """Return robust accuracy in percent by model, variant and radius."""
    heads = ["Model", "Variant", "Images", "Clean", *[f"{eps}/255" for eps in RADII]]
    lines = [heads, ["---", "---", *["---:"] * (len(heads) - 2)]]
    for row in sorted(rows, key=lambda row: (names().index(row["model"]), VARIANTS.index(row["variant"]))):
        shares = [f"{percent(row['robust'][str(eps)]):.1f}" for eps in RADII]
        lines.append([row["model"], row["variant"], str(row["images"]), f"{percent(row['right']):.1f}", *shares])
    return markdown(lines)


def percent(bits: str) -> float:
    """Return the share of ones."""
    return 100 * bits.count("1") / len(bits)


def main() -> None:
    """Parse, measure what is missing, keep, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with cifar10/{train,test}.parquet")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--models", nargs="+", default=names(), choices=names())
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--table", action="store_true", help="only print what was measured before")
    options = parser.parse_args()
    if not options.table:
        if options.data is None:
            parser.error("--data is needed to measure")
        data = load_image_set(Dataset.CIFAR10, Split.TEST, options.data).first(options.images)
        known = {tuple(row[key] for key in _KEYS) for row in read(RESULTS)}
        for name in options.models:
            wanted = [v for v in options.variants if v in OF_PAIR or name not in PAIR]
            for variant in [v for v in wanted if (name, v, len(data)) not in known]:
                row = measure(name, attacked_model(name, options.data), variant, data)
                keep([row], RESULTS, _KEYS)
                print({key: row[key] for key in ("model", "variant", "failed", "seconds")}, flush=True)
    print(table(read(RESULTS)))


if __name__ == "__main__":
    run_script(main)
