"""What do the paper's claims about robustness come to, on students trained here?

    python benchmarks/robustness_claims.py --data DIR [--images 128]
    python benchmarks/robustness_claims.py --table

The models are NODE(1), NODE(10) and NODE(100) of `trained.py`: 64 channels, labels alone, minutes of training. Small: they
show mechanisms, not the paper's accuracies. Each is attacked by the paper's PGD and MI-FGSM, and by variants that change one
thing; an image counts as robust if it is right and both attacks' last iterates are, on the model as deployed.

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

import torch
from torch import Tensor

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
from nodestill.experiments.subjects import subject_of_model
from nodestill.models import NeuralODEClassifier, Norm, Normalize
from rows import keep, markdown, read
from trained import HORIZONS, trained

RESULTS = Path(__file__).parent / "results" / "robustness_claims.jsonl"
RADII = (1, 2, 4, 8, 16, 20)
VARIANTS = ("exact", "adjoint", "rescaled", "normalised", "sound")
_KEYS = ("horizon", "variant", "images")
_BATCH = 64


def robust_under(along: LogitsFn, deployed: LogitsFn, batch: Batch, budget: LinfBudget) -> Tensor:
    """Return which images both attacks leave right, as deployed, when gradients are taken along another function."""
    left = torch.ones_like(batch.labels, dtype=torch.bool)
    for result in (
        pgd(along, batch.images, batch.labels, budget, keys=batch.index),
        mi_fgsm(along, batch.images, batch.labels, budget),
    ):
        with torch.no_grad():
            left &= predictions(deployed(result.images)) == batch.labels
    return left


def by_the_paper(model: NeuralODEClassifier, variant: str, data: ImageSet) -> dict[int, list[bool]]:
    """Return who survives at each radius."""
    subject = subject_of_model(model)
    along, deployed = subject.logits, subject.logits
    if variant == "adjoint":
        along = subject.gradient_paths["adjoint"]
    if variant == "rescaled":
        along = deployed = subject.horizon_rescaled or deployed
    budget: Callable[[int], LinfBudget] = paper_budget
    if variant == "normalised":
        scale = float(next(layer for layer in model.modules() if isinstance(layer, Normalize)).std.mean())
        budget = lambda eps: LinfBudget(round(eps * scale), steps=paper_budget(eps).steps)  # noqa: E731
    found: dict[int, list[bool]] = {eps: [] for eps in RADII}
    for places in torch.arange(len(data)).split(_BATCH):
        batch = data.at(places)
        for eps in RADII:
            found[eps] += robust_under(along, deployed, batch, budget(eps)).tolist()
    return found


def worst_case(model: NeuralODEClassifier, data: ImageSet) -> dict[int, list[bool]]:
    """Return who survives everything at each radius."""
    hunt = Hunt(subject_of_model(model), data, _BATCH)
    state = start(hunt)
    for row in hunt_down(hunt, [a for a in ALL_ATTACKS if a is not AttackName.TRANSFER], RADII, state=state):
        state = state.after(row)
    return {eps: state.robust(eps).tolist() for eps in RADII}


def measure(model: NeuralODEClassifier, horizon: float, variant: str, data: ImageSet) -> dict:
    """Attack one model in one way."""
    since = perf_counter()
    with torch.no_grad():
        batches = [data.at(places) for places in torch.arange(len(data)).split(_BATCH)]
        right = torch.cat([predictions(model(batch.images)) == batch.labels for batch in batches])
    survives = worst_case(model, data) if variant == "sound" else by_the_paper(model, variant, data)
    robust = {eps: torch.tensor(left) & right for eps, left in survives.items()}
    return {
        "horizon": horizon,
        "variant": variant,
        "images": len(data),
        "clean": int(right.sum()),
        "robust": {eps: int(left.sum()) for eps, left in robust.items()},
        "by_class": {
            eps: torch.bincount(data.labels[left], minlength=data.num_classes).tolist() for eps, left in robust.items()
        },
        "seconds": perf_counter() - since,
        "data": data.provenance,
        "environment": environment(torch.device("cpu")),
    }


def table(rows: list[dict]) -> str:
    """Return robust accuracy in percent by model, variant and radius."""
    heads = ["Model", "Variant", "Images", "Clean", *[f"{eps}/255" for eps in RADII]]
    lines = [heads, ["---", "---", *["---:"] * (len(heads) - 2)]]
    for row in sorted(rows, key=lambda row: (row["horizon"], VARIANTS.index(row["variant"]))):
        shares = [f"{100 * row['robust'][str(eps)] / row['images']:.1f}" for eps in RADII]
        cells = [f"NODE({row['horizon']:g})", row["variant"], str(row["images"]), f"{100 * row['clean'] / row['images']:.1f}"]
        lines.append([*cells, *shares])
    return markdown(lines)


def main() -> None:
    """Parse, measure what is missing, keep, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with cifar10/{train,test}.parquet")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--horizons", type=float, nargs="+", default=list(HORIZONS))
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--table", action="store_true", help="only print what was measured before")
    options = parser.parse_args()
    if not options.table:
        if options.data is None:
            parser.error("--data is needed to measure")
        data = load_image_set(Dataset.CIFAR10, Split.TEST, options.data).first(options.images)
        known = {tuple(row[key] for key in _KEYS) for row in read(RESULTS)}
        for horizon in options.horizons:
            model = trained(horizon, Norm.GROUP, options.data).requires_grad_(False)
            for variant in options.variants:
                if (horizon, variant, len(data)) not in known:
                    row = measure(model, horizon, variant, data)
                    keep([row], RESULTS, _KEYS)
                    print({key: row[key] for key in ("horizon", "variant", "clean", "robust", "seconds")}, flush=True)
    print(table(read(RESULTS)))


if __name__ == "__main__":
    main()
