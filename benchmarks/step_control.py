"""Plain step control or PI: which takes fewer evaluations of f, at which error?

    python benchmarks/step_control.py --data DIR            measure, keep rows, print the table
    python benchmarks/step_control.py --table               only print

Plain control takes the next step by the last error alone. PI takes the one before into account too:
h * 0.9 * ratio^(-0.7 / k) * before^(0.4 / k) after an accepted step, with k the order (Gustafsson 1991, "Control theoretic
techniques for stepsize selection in explicit Runge-Kutta methods", TOMS 17, p. 533; the exponents of Hairer and Wanner 1996,
Solving ODEs II, section IV.2), plain control after a rejected one. All else is our solver's. Each image is solved alone: f
is that of solve_speed.py with GroupNorm and random weights, and those of the trained students under results/. Errors are
relative, of all images together, against a float64 solve at 1e-7. Control that is tamer has smaller errors at one tolerance,
so evaluations are compared at one error.
"""

import argparse
import math
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from nodestill.data import Dataset, Split, load_image_set
from nodestill.experiments.environment import environment
from nodestill.experiments.members import build_model
from nodestill.experiments.model_recipes import StudentRecipe
from nodestill.experiments.plain import from_plain
from nodestill.experiments.store import RunFolder
from nodestill.models import NeuralODEClassifier, Norm
from nodestill.ode import Method, Solver, march, solve
from nodestill.ode.step_size import next_size, on_grid
from nodestill.reproduction.grid_records import read_grid
from rows import keep, markdown, read, run_script
from solve_speed import relative, workload

RESULTS = Path(__file__).parent / "results" / "step_control.jsonl"
GRID = Path(__file__).parent.parent / "results" / "reproduce-cifar10-cpu"
SETTINGS = ("weights", "horizon", "method", "tolerance", "control")
_HORIZONS, _METHODS, _STUDENTS = (1.0, 10.0, 100.0), (Method.DOPRI5, Method.BOSH3), ("node1", "node100", "node500")
_REFERENCE = 1e-7
_SAFETY, _SHRINK, _GROW, _ALPHA, _BETA = 0.9, 0.2, 10.0, 0.7, 0.4

Control = Callable[[Tensor, Tensor, int], Tensor]


class PI:
    """The PI rule for one image; a new one for each solve."""

    def __init__(self) -> None:
        self.before = 1.0

    def __call__(self, h: Tensor, ratio: Tensor, order: int) -> Tensor:
        """Return the next step size."""
        now = float(ratio.clamp_min(1e-10))
        if now > 1 or now != now:
            return next_size(h, ratio, order)
        factor = _SAFETY * now ** (-_ALPHA / order) * self.before ** (_BETA / order)
        self.before = max(now, 1e-4)  # Hairer and Wanner: an error that was almost nothing says nothing of the next
        return on_grid(h * min(max(factor, _SHRINK), _GROW))


@contextmanager
def controlled_by(control: Control) -> Iterator[None]:
    """Exchange our solver's rule for another."""
    usual, march.next_size = march.next_size, control
    try:
        yield
    finally:
        march.next_size = usual


def starts(data: Path, images: int) -> Iterator[tuple[str, float, nn.Module, Tensor]]:
    """Yield weights, horizon, f and states at the start."""
    for horizon in _HORIZONS:
        f, y0, _ = workload(64, horizon, Norm.GROUP, images)
        yield "random", horizon, f, y0
    grid, some = read_grid(GRID), load_image_set(Dataset.CIFAR10, Split.TEST, data).first(images)
    for name in _STUDENTS:
        model = _student(RunFolder(GRID / (grid.first(name).folder or "")))
        with torch.no_grad():
            y0 = model.encoder(some.images.float() / 255)
        yield "trained", model.t1, model.dynamics, y0


def _student(folder: RunFolder) -> NeuralODEClassifier:
    model = build_model(from_plain(StudentRecipe, folder.read("recipe.json")["model"]), 0, 10)
    folder.load_weights(model)
    if not isinstance(model, NeuralODEClassifier):
        raise TypeError(f"{folder.path} holds no Neural ODE")
    return model.eval()


def measure(f: nn.Module, y0: Tensor, horizon: float, method: Method, tolerance: float) -> list[dict]:
    """Return a row for each rule, of every image solved alone."""
    tight = Solver(Method.DOPRI5, rtol=_REFERENCE, atol=_REFERENCE, max_steps=100_000)
    exact = solve(f.double(), y0.double(), 0.0, horizon, tight).y1
    f.float()
    rows = []
    for name, rule in (("plain", lambda: next_size), ("PI", PI)):
        ends, counts = [], []
        for image in y0.split(1):
            with controlled_by(rule()):
                found = solve(f, image, 0.0, horizon, Solver(method, rtol=tolerance, atol=tolerance))
            ends.append(found.y1)
            counts.append([float(part) for part in (found.stats.evaluations, found.stats.accepted, found.stats.rejected)])
        calls, accepted, rejected = (sum(part) / len(counts) for part in zip(*counts))
        figures = {"evaluations": calls, "accepted": accepted, "rejected": rejected}
        rows.append({"control": name, **figures, "error": relative([torch.cat(ends)], [exact]), "images": len(y0)})
    return rows


def table(rows: list[dict]) -> str:
    """Return a line for each problem and method: plain control at 1e-3, PI there, and PI where its error is as large."""
    heads = ["Weights", "Horizon", "Method", "Plain: evaluations", "rejected", "error", "PI: evaluations", "rejected", "error"]
    lines = [[*heads, "PI at plain's error", "over plain"], ["---"] * 11]
    by_place: dict[tuple, dict[tuple[str, float], dict]] = {}
    for row in rows:
        by_place.setdefault(tuple(row[key] for key in SETTINGS[:3]), {})[row["control"], row["tolerance"]] = row
    for (weights, horizon, method), found in by_place.items():
        plain, pi = (found[control, _SHOWN] for control in ("plain", "PI"))
        cells = [f"{row[key]:{how}}" for row in (plain, pi) for key, how in _FIGURES]
        calls = at_error([row for (control, _), row in found.items() if control == "PI"], plain["error"])
        equal = ["–", "–"] if calls is None else [f"{calls:.1f}", f"{calls / plain['evaluations']:.2f}"]
        lines.append([weights, f"{horizon:g}", method, *cells, *equal])
    over = sorted(float(line[-1]) for line in lines[2:] if line[-1] != "–")
    about = f"At plain control's error PI takes {statistics.median(over):.2f} of its evaluations in the median"
    return f"{markdown(lines)}\n\n{about} ({over[0]:.2f} to {over[-1]:.2f}). –: its error is smaller at every tolerance tried."


_SHOWN = 1e-3
_FIGURES = (("evaluations", ".1f"), ("rejected", ".1f"), ("error", ".1e"))


def at_error(rows: list[dict], error: float) -> float | None:
    """Return the evaluations at an error, between two tolerances by a straight line of logarithms; none outside of them."""
    rows = sorted(rows, key=lambda row: row["tolerance"])
    for tight, loose in pairwise(rows):
        if tight["error"] <= error <= loose["error"]:
            share = math.log(error / tight["error"]) / math.log(loose["error"] / tight["error"])
            return tight["evaluations"] ** (1 - share) * loose["evaluations"] ** share
    return None


def main() -> None:
    """Parse, measure, keep, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of CIFAR-10")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--tolerances", type=float, nargs="+", default=[1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 1e-4])
    parser.add_argument("--table", action="store_true", help="only print the table of what was measured before")
    options = parser.parse_args()
    rows = read(RESULTS)
    if not options.table:
        torch.set_grad_enabled(False)
        for weights, horizon, f, y0 in starts(options.data, options.images):
            for tolerance, method in ((some, one) for some in options.tolerances for one in _METHODS):
                about = {"weights": weights, "horizon": horizon, "method": method.value, "tolerance": tolerance}
                found = measure(f, y0, horizon, method, tolerance)
                fresh = [about | row | {"environment": environment(torch.device("cpu"))} for row in found]
                rows = keep(fresh, RESULTS, SETTINGS)
                print(about, [(row["control"], row["evaluations"], row["error"]) for row in found], flush=True)
    print(table(rows))


if __name__ == "__main__":
    run_script(main)
