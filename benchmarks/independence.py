"""Does an image's result depend on its batch?

    python benchmarks/independence.py --horizon 1 --data DIR

Logits and gradients of the cross-entropy with respect to the image, of trained models at a tolerance of 1e-3: each image alone
and in a batch of 128, and the batch in its order and in another. Relative changes are those of an image's whole gradient, or
of its logits, in units of its norm; the worst image counts. Kernels round differently at another batch size. Where that flips
a decision to accept a step, or carries a step size over a point of the grid that sizes are rounded to, the steps differ: such
images are counted, and the worst of the others stands beside the worst of all. A step of another size puts other ReLUs on the
other side of zero, and rounding alone can: y hardly sees it, its gradient does. In float64 both are rare, and with softplus in
place of the ReLUs of the same weights there are none to switch. Gradients that change by more than 1e-5 are counted.

The second part asks for a leak. One image's logits are multiplied until its softmax is exactly 0 and 1 in float32, so that the
gradient of its own loss is exactly 0. Whatever gradient it has in a batch whose losses are summed is that of other
images' losses. It is given in units of the mean norm of the others' gradients.
"""

import argparse
import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gradient_subjects import cell, rivals
from nodestill.experiments.environment import environment
from nodestill.models import Activation, ConvDynamics, NeuralODEClassifier, Norm
from nodestill.ode import GradientMode, Solver, StepControl, solve
from nodestill.precision import Precision
from rows import keep, markdown, run_script
from trained import test_images, trained

RESULTS = Path(__file__).parent / "results" / "independence.jsonl"
TOLERANCE = 1e-3
_MOST_STEPS = 100
_MUCH = 1e-5  # of an image's gradient: what it may change by where its steps do not
_COLUMNS = {
    "independence": {
        "logits_change": "Logits, absolute", "gradient_change": "Gradient, absolute", "logits_relative": "Logits",
        "gradient_relative": "Gradient", "gradient_relative_median": "Gradient, median", "gradient_above": "Above 1e-5",
        "other_decisions": "Other decisions", "gradient_relative_same_decisions": "Gradient, same decisions",
        "other_steps": "Other steps", "gradient_relative_same_steps": "Gradient, same steps",
    },
    "leak": {"leak": "In the batch", "leak_alone": "Alone"},
}  # fmt: skip
_SETTINGS = ("question", "horizon", "batch", "tolerance", "contender", "against")  # what a row is the answer to


class Way(NamedTuple):
    """A way to solve, and the arithmetic around it."""

    solve: Callable[[ConvDynamics, Tensor], tuple[Tensor, Tensor | None]]  # the end state, and each image's steps if known
    dtype: torch.dtype = torch.float32
    activation: Activation = Activation.RELU


class Outcome(NamedTuple):
    """What a batch got, image by image."""

    logits: Tensor
    gradient: Tensor  # of the image's loss
    steps: Tensor | None  # numbers of accepted and of rejected steps, then the sizes of those accepted, where known

    def at(self, index: Tensor) -> "Outcome":
        return Outcome(*[None if part is None else part[index] for part in self])


def ways(tolerance: float) -> dict[str, Way]:
    """Return the ways to solve by name: ours, and those of other libraries on the same f."""

    def ours(solver: Solver) -> Callable:
        def run(f: ConvDynamics, y0: Tensor) -> tuple[Tensor, Tensor]:
            found = solve(f, y0, 0.0, f.t1, solver)
            sizes = F.pad(found.steps.sizes.t(), (0, _MOST_STEPS - len(found.steps.sizes)))
            return found.y1, torch.cat([torch.stack(found.stats[1:], 1), sizes], 1)

        return run

    plain = Solver(rtol=tolerance, atol=tolerance)
    own = {
        "ours, per image": Way(ours(plain)),
        "ours, per image, float64": Way(ours(plain), torch.float64),
        "ours, per image, softplus": Way(ours(plain), activation=Activation.SOFTPLUS),
        "ours, per image, bfloat16": Way(ours(replace(plain, precision=Precision.BFLOAT16))),
        "ours, per image, adjoint": Way(ours(replace(plain, gradient=GradientMode.ADJOINT))),
        "ours, shared": Way(ours(replace(plain, step_control=StepControl.SHARED))),
    }
    return own | {name: Way(lambda f, y0, by=by: (by(f, y0), None)) for name, by in rivals(tolerance).items()}


def outcome(way: Way, model: NeuralODEClassifier, images: Tensor, labels: Tensor, factors: Tensor | None = None) -> Outcome:
    """Solve a batch and differentiate the sum of its losses; `factors` multiply each image's logits."""
    images = images.to(way.dtype).detach().requires_grad_()
    y1, steps = way.solve(model.dynamics, model.encode(images))
    logits = model.head(y1)
    scaled = logits if factors is None else logits * factors[:, None].to(way.dtype)
    (gradient,) = torch.autograd.grad(F.cross_entropy(scaled, labels, reduction="sum"), images)
    return Outcome(logits.detach(), gradient, steps)


def alone(way: Way, model: NeuralODEClassifier, images: Tensor, labels: Tensor) -> Outcome:
    """Return what each image gets in a batch of its own."""
    each = [outcome(way, model, images[i : i + 1], labels[i : i + 1]) for i in range(len(images))]
    return Outcome(*[None if parts[0] is None else torch.cat(parts) for parts in zip(*each, strict=True)])


def changes(found: Outcome, expected: Outcome) -> dict[str, object]:
    """Return the worst changes over the images, of all of them and of those whose steps were accepted alike."""
    row: dict[str, object] = {"images": len(found.logits), **_worst(found, expected, "")}
    if found.steps is None:
        return row
    same = found.steps == expected.steps
    for what, alike in (("decisions", same[:, :2].all(1)), ("steps", same.all(1))):
        row[f"other_{what}"] = int((~alike).sum())
        row |= _worst(found.at(alike), expected.at(alike), f"_same_{what}") if bool(alike.any()) else {}
    return row


def _worst(found: Outcome, expected: Outcome, ending: str) -> dict[str, float]:
    row = {}
    for name in ("logits", "gradient"):
        a, b = (getattr(part, name).double().flatten(1) for part in (found, expected))
        row[f"{name}_change{ending}"] = float((a - b).abs().max())
        relative = (a - b).norm(dim=1) / b.norm(dim=1)
        row[f"{name}_relative{ending}"] = float(relative.max())
        row[f"{name}_relative_median{ending}"] = float(relative.median())
        row[f"{name}_above{ending}"] = int((relative > _MUCH).sum())
    return row


def independence(way: Way, model: NeuralODEClassifier, images: Tensor, labels: Tensor, few: int) -> list[dict]:
    """Compare a batch with its images alone, and with the same batch in another order."""
    together = outcome(way, model, images, labels)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    permuted = outcome(way, model, images[order], labels[order]).at(order.argsort())
    by_itself = alone(way, model, images[:few], labels[:few])
    first = changes(together.at(torch.arange(few)), by_itself)
    return [{"against": "alone", **first}, {"against": "permuted", **changes(permuted, together)}]


def leak(way: Way, model: NeuralODEClassifier, images: Tensor, labels: Tensor) -> dict[str, object]:
    """Saturate the first image and return its gradient's norm, alone and in the batch, in units of the others' mean norm."""
    with torch.no_grad():
        y1, _ = way.solve(model.dynamics, model.encode(images[:1].to(way.dtype)))
        labels = torch.cat([model.head(y1).argmax(1), labels[1:]])
    factors = torch.ones(len(images)).index_fill_(0, torch.tensor([0]), 1e6)
    norms = outcome(way, model, images, labels, factors).gradient.flatten(1).norm(dim=1)
    own = outcome(way, model, images[:1], labels[:1], factors[:1]).gradient.norm()
    return {"against": "neighbours", "leak": float(norms[0] / norms[1:].mean()), "leak_alone": float(own / norms[1:].mean())}


def measure(options: argparse.Namespace) -> list[dict]:
    """Return the rows of one horizon."""
    model, rows = trained(options.horizon, Norm.GROUP, options.data), []
    images, labels = test_images(options.data, options.batch)
    common = {"horizon": options.horizon, "batch": options.batch, "tolerance": TOLERANCE}
    common |= {"environment": environment(torch.device("cpu"))}
    for name, way in ways(TOLERANCE).items():
        if options.only not in name:
            continue
        net = copy.deepcopy(model).to(way.dtype)
        net.dynamics.activation = way.activation
        if "adjoint" not in name:
            found = independence(way, net, images, labels, options.alone)
            rows += [{"question": "independence", "contender": name} | row | common for row in found]
        rows.append({"question": "leak", "contender": name} | leak(way, net, images, labels) | common)
        print(f"  NODE({options.horizon:g}), {name}: done", flush=True)
    return rows


def table(rows: list[dict]) -> str:
    """Return the rows as two tables in markdown, one for each question."""
    return "\n\n".join(_table(rows, question) for question in _COLUMNS)


def _table(rows: list[dict], question: str) -> str:
    columns = _COLUMNS[question]
    lines = [["Horizon", "Contender", "Against", *columns.values()], ["---"] * 3 + ["---:"] * len(columns)]
    for row in rows:
        if row["question"] == question:
            first = [f"{row['horizon']:g}", row["contender"], row["against"]]
            lines.append(first + [cell(row, name) for name in columns])
    return markdown(lines)


def main() -> None:
    """Parse, measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with cifar10/{train,test}.parquet")
    parser.add_argument("--horizon", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--alone", type=int, default=128, help="how many images of the batch are also solved alone")
    parser.add_argument("--only", default="", help="only contenders with this in their name; the rows of the others stay")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = measure(options)
    keep(rows, options.out, _SETTINGS)
    print(table(rows))


if __name__ == "__main__":
    run_script(main)
