"""How long does the robustness curve of a Neural ODE take, and how low is it?

    python benchmarks/attack_sweep.py --data DIR                        (512 images, hours for the plain way; parts are kept)
    python benchmarks/attack_sweep.py --data DIR --images 128 --skip full
    python benchmarks/attack_sweep.py --table

The distilled NODE(1) of `attacked_models.py`, width 64, dopri5 at 1e-3 in float32, weights frozen, radii 1 ... 20 of 255, PGD
and MI-FGSM. Ours has its first step calibrated on training images:

- plain: torchdiffeq with backpropagation through the solve, f as it is usually written, one attack per radius with the paper's
  steps. What one gets who glues the libraries together.
- chu2022: our solver, the same protocol, MI-FGSM's radii sharing their steps.
- sound: our protocol of the worst case, restricted to PGD and MI-FGSM.
- full: that protocol with all attacks that need no other model.

Contenders take turns on parts of --batch images, so that a disturbance meets all of them. A finished part is kept.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn

from attacked_models import attacked_model, with_first_step
from contenders import AsUsual, torchdiffeq_direct
from nodestill.attacks import (
    ALL_ATTACKS,
    AttackName,
    Hunt,
    LogitsFn,
    hunt_down,
    mi_fgsm,
    mi_fgsm_curve,
    paper_budget,
    pgd,
    start,
)
from nodestill.data import Batch, Dataset, ImageSet, Split, load_image_set
from nodestill.experiments.environment import environment
from nodestill.models import NeuralODEClassifier
from nodestill.subjects.of_model import subject_of_model
from rows import keep, markdown, read, run_script

RESULTS = Path(__file__).parent / "results" / "attack_sweep.jsonl"
RADII = tuple(range(1, 21))
CONTENDERS = ("plain", "chu2022", "sound", "full")
_KEYS = ("contender", "part", "batch", "threads")
Robust = dict[int, list[bool]]  # radius → which images survive


class Plain(nn.Module):
    """The same classifier, its equation solved by torchdiffeq."""

    def __init__(self, model: NeuralODEClassifier) -> None:
        super().__init__()
        self.model, self.f = model, AsUsual(model.dynamics)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        return self.model.head(torchdiffeq_direct(self.f, self.model.encode(images)))


def by_the_paper(logits_fn: LogitsFn, batch: Batch, *, share: bool) -> tuple[Robust, int]:
    """Run PGD and MI-FGSM at every radius; return who survives both, and the gradients taken per image."""
    robust, calls = {}, 0
    curve = dict(mi_fgsm_curve(logits_fn, batch.images, batch.labels, RADII)) if share else {}
    for eps in RADII:
        first = pgd(logits_fn, batch.images, batch.labels, paper_budget(eps), keys=batch.index)
        second = curve[eps] if share else mi_fgsm(logits_fn, batch.images, batch.labels, paper_budget(eps))
        robust[eps] = (~(first.fooled | second.fooled)).tolist()
        calls += first.gradient_calls + second.gradient_calls
    return robust, calls


def worst_case(model: NeuralODEClassifier, data: ImageSet, attacks: Sequence[AttackName]) -> tuple[Robust, float]:
    """Run the protocol sound; return who survives at each radius, and the mean number of gradients per image."""
    hunt = Hunt(subject_of_model(model), data, len(data))
    state, calls = start(hunt), 0.0
    for row in hunt_down(hunt, attacks, RADII, state=state):
        state, calls = state.after(row), calls + row.gradient_calls
    return {eps: state.robust(eps).tolist() for eps in RADII}, calls


def measure(name: str, model: NeuralODEClassifier, data: ImageSet, places: Tensor) -> dict:
    """Time one contender on one part of the images."""
    some, batch = data.subset(places), data.at(places)
    with torch.no_grad():
        right = (model(batch.images).argmax(1) == batch.labels).tolist()
    since = perf_counter()
    match name:
        case "plain":
            robust, calls = by_the_paper(Plain(model), batch, share=False)
        case "chu2022":
            robust, calls = by_the_paper(model, batch, share=True)
        case "sound":
            robust, calls = worst_case(model, some, (AttackName.PGD, AttackName.MI_FGSM))
        case _:
            robust, calls = worst_case(model, some, tuple(a for a in ALL_ATTACKS if a is not AttackName.TRANSFER))
    seconds = perf_counter() - since
    left = {eps: sum(one and was for one, was in zip(survives, right)) for eps, survives in robust.items()}
    return {"contender": name, "seconds": seconds, "gradient_calls": calls, "clean": sum(right), "robust": left}


def table(rows: Sequence[dict]) -> str:
    """Return time over the plain way's, part by part, and robust accuracy."""
    heads = ["Contender", "Images", "Gradients an image", "Seconds a part", "Faster than plain", "Parts"]
    radii = ["1", "2", "4", "8", "16"]
    lines = [[*heads, *[f"robust at {eps}/255, %" for eps in radii]]]
    lines.append(["---", *["---:"] * (len(lines[0]) - 1)])
    plain = {(row["part"], row["batch"], row["threads"]): row["seconds"] for row in rows if row["contender"] == "plain"}
    for name in CONTENDERS:
        mine = [row for row in rows if row["contender"] == name]
        if mine:
            ratios = sorted(
                plain[key] / row["seconds"] for row in mine if (key := (row["part"], row["batch"], row["threads"])) in plain
            )
            spread = f"{median(ratios):.1f} ({ratios[0]:.1f}–{ratios[-1]:.1f})" if ratios else "–"
            count = sum(row["batch"] for row in mine)
            cells = [name, str(count), f"{median(row['gradient_calls'] for row in mine):.0f}"]
            cells += [f"{median(row['seconds'] for row in mine):.0f}", spread, str(len(mine))]
            lines.append([*cells, *[f"{100 * sum(row['robust'][eps] for row in mine) / count:.1f}" for eps in radii]])
    return markdown(lines)


def main() -> None:
    """Parse, measure what is missing, keep, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with cifar10/{train,test}.parquet")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--skip", nargs="*", default=[], choices=CONTENDERS)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--table", action="store_true", help="only print what was measured before")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if not options.table:
        if options.data is None:
            parser.error("--data is needed to measure")
        data = load_image_set(Dataset.CIFAR10, Split.TEST, options.data).first(options.images)
        model = with_first_step(attacked_model("distilled", options.data), options.data)
        known = {tuple(row[key] for key in _KEYS) for row in read(RESULTS)}
        for part, places in enumerate(torch.arange(len(data)).split(options.batch)):
            for name in CONTENDERS:
                if name not in options.skip and (name, part, len(places), options.threads) not in known:
                    row = measure(name, model, data, places)
                    row |= {"part": part, "batch": len(places), "threads": options.threads, "data": data.provenance}
                    keep([row | {"environment": environment(torch.device("cpu"))}], RESULTS, _KEYS)
                    print({key: row[key] for key in ("contender", "part", "seconds", "gradient_calls")}, flush=True)
    print(table(read(RESULTS)))


if __name__ == "__main__":
    run_script(main)
