"""How far is the gradient of each way to differentiate a solve from the true one, and from that of the solve itself?

    python benchmarks/gradient_quality.py --weights trained --horizon 1 --data DIR

Two truths are told apart, because for a f with ReLU they part. The *true* gradient is that of the solution of the equation:
the continuous adjoint in float64 at a tight tolerance, its doubt being its difference from one at ten times that tolerance.
The *own* gradient is that of the steps that were taken: the same steps, differentiated in float64. At every ReLU that switches
on the way the derivative of f jumps. A step that straddles a jump has a derivative that is wrong in first order of its size,
while y shows little of it, so the gradient of the steps converges to the true one far more slowly than y does. With softplus
both are one. A rival's own gradient is its backpropagation in float64, whose steps may differ a little. The loss is a random
weighting of the end state for a random f, and the sum of the images' cross-entropies for a trained model, whose input is the
image. Weight gradients are those of f. Evaluations are calls of f on the way forward. Rounding is what bfloat16 changes in y1
along the same steps, in units of rtol |y1| + atol.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from contenders import Contender, ours
from gradient_subjects import Found, Subject, cell, gradients, random_subject, rivals, trained_subject
from nodestill.errors import SolveError
from nodestill.experiments.environment import environment
from nodestill.models import Activation
from nodestill.ode import GradientMode, Method, Solver, StepRecord, solve
from nodestill.precision import Precision
from rows import keep, markdown, run_script
from solve_speed import calls_of, relative

RESULTS = Path(__file__).parent / "results" / "gradient_quality.jsonl"
_LOSS_SCALE = 100.0
_SETTINGS = ("weights", "activation", "horizon", "tolerance", "contender")  # what a row is the answer to


def truth(exact: Subject, tolerance: float) -> tuple[Found, dict[str, float]]:
    """Return the true gradient, by float64 adjoints, and its relative difference from the one at ten times the tolerance.

    The loss is scaled up, so that the relative tolerance governs the adjoint, which may be small, and not the absolute one.
    """
    scaled = exact._replace(loss=lambda y1: _LOSS_SCALE * exact.loss(y1))
    tight, loose = (
        gradients(ours(Solver(rtol=tol, atol=tol, gradient=GradientMode.ADJOINT, max_steps=100_000)), scaled)
        for tol in (tolerance, 10 * tolerance)
    )
    true = Found(tight.state, tight.start / _LOSS_SCALE, [part / _LOSS_SCALE for part in tight.weights])
    return true, _errors(loose, tight)


def _errors(found: Found, expected: Found) -> dict[str, float]:
    return {
        "state": relative([found.state], [expected.state]),
        "input": relative([found.start], [expected.start]),
        "weight": relative(found.weights, expected.weights),
    }


def _cosines(found: Found, expected: Found) -> dict[str, float]:
    """Return cosines with the expected gradients: of the start per image (mean and smallest), of all weights together."""
    each = F.cosine_similarity(found.start.double().flatten(1), expected.start.flatten(1))
    weights = [torch.cat([part.double().flatten() for part in parts]) for parts in (found.weights, expected.weights)]
    cosine = float(F.cosine_similarity(*weights, dim=0))
    return {"input_cosine": float(each.mean()), "input_cosine_worst": float(each.min()), "weight_cosine": cosine}


def our_ways(subject: Subject, tolerance: float) -> dict[str, Solver]:
    """Return our solvers by name; the reversible one takes as many evaluations as dopri5 did."""
    plain = Solver(rtol=tolerance, atol=tolerance)
    calls = calls_of(ours(plain), subject.f, subject.encode(subject.start).detach())
    return {
        "ours dopri5, direct": replace(plain, gradient=GradientMode.DIRECT),
        "ours dopri5, recompute": plain,
        "ours dopri5, recompute, bfloat16": replace(plain, precision=Precision.BFLOAT16),
        "ours dopri5, adjoint": replace(plain, gradient=GradientMode.ADJOINT),
        "ours bosh3, recompute": replace(plain, method=Method.BOSH3),
        "ours even4, recompute": replace(plain, method=Method.EVEN4),
        "ours reversible": Solver(Method.REVERSIBLE, steps=max(1, round(calls / 4))),
    }


def _own(subject: Subject, exact: Subject, solver: Solver) -> Found:
    """Return the gradient of the very steps that a solver takes, differentiated in float64."""
    if solver.method is Method.REVERSIBLE:
        return gradients(ours(solver), exact)
    plain = replace(solver, precision=Precision.FLOAT32, gradient=GradientMode.RECOMPUTE)
    return gradients(ours(plain, _record(subject, solver)), exact)


def measured(contender: Contender, subject: Subject, true: Found, own: Callable[[], Found] | None) -> dict[str, object]:
    """Return the errors of one contender, or why it has none."""
    try:
        found, steps = gradients(contender, subject), None if own is None else own()
    except (SolveError, AssertionError) as error:
        return {"failed": str(error)}
    row: dict[str, object] = {f"{what}_error": error for what, error in _errors(found, true).items()}
    if steps is not None:
        row |= {f"own_{what}_error": error for what, error in _errors(found, steps).items()}
    calls = calls_of(contender, subject.f, subject.encode(subject.start).detach())
    return row | _cosines(found, true) | {"evaluations": calls}


def rounding(subject: Subject, tolerance: float) -> dict[str, float]:
    """Return the change of y1 by bfloat16 along the same steps, RMS over an image, in units of rtol |y1| + atol."""
    plain = Solver(rtol=tolerance, atol=tolerance)
    with torch.no_grad():
        y0 = subject.encode(subject.start)
        first = solve(subject.f, y0, 0.0, subject.f.t1, plain)
        low, high = (
            solve(subject.f, y0, 0.0, subject.f.t1, replace(plain, precision=precision), replay=first.steps).y1
            for precision in (Precision.BFLOAT16, Precision.FLOAT32)
        )
    ratio = ((low - high) / (tolerance * high.abs() + tolerance)).flatten(1).square().mean(1).sqrt()
    return {"rounding_in_tolerances": float(ratio.mean()), "rounding_in_tolerances_worst": float(ratio.max())}


def at_tolerance(subject: Subject, exact: Subject, tolerance: float) -> dict[str, Callable[[Found], dict[str, object]]]:
    """Return by name how the row of each contender at one tolerance is measured, given the true gradient."""
    ways = our_ways(subject, tolerance)
    rows = {
        name: lambda true, s=solver: measured(ours(s), subject, true, lambda: _own(subject, exact, s))
        for name, solver in ways.items()
    }
    low, direct = "ours dopri5, recompute, bfloat16", ways["ours dopri5, direct"]
    rows[low] = lambda true, plain=rows[low]: plain(true) | rounding(subject, tolerance)
    rows["ours dopri5, direct, replayed"] = lambda true: measured(
        ours(direct, _record(subject, direct)), subject, true, lambda: _own(subject, exact, direct)
    )
    others = rivals(tolerance)
    for name, contender in others.items():  # a rival's own gradient: its backpropagation in float64
        way = others[name.removesuffix(" adjoint")]
        rows[name] = lambda true, c=contender, w=way: measured(c, subject, true, lambda: gradients(w, exact))
    return rows


def _record(subject: Subject, solver: Solver) -> StepRecord:
    with torch.no_grad():
        return solve(subject.f, subject.encode(subject.start), 0.0, subject.f.t1, solver).steps


def measure(options: argparse.Namespace) -> list[dict]:
    """Return the rows of a workload."""
    of = (options.horizon, options.images)
    subject, exact = (
        random_subject(*of, dtype, Activation(options.activation))
        if options.weights == "random"
        else trained_subject(*of, dtype, options.data)
        for dtype in (torch.float32, torch.float64)
    )
    true, doubt = truth(exact, options.reference)
    common = {
        "weights": options.weights,
        "activation": exact.f.activation.value,
        "horizon": options.horizon,
        "images": options.images,
    }
    common |= {
        "reference_tolerance": options.reference,
        "reference_doubt": doubt,
        "environment": environment(torch.device("cpu")),
    }
    ways = {(tol, name): row for tol in options.tolerances for name, row in at_tolerance(subject, exact, tol).items()}
    tight = Solver(rtol=10 * options.reference, atol=10 * options.reference, max_steps=100_000)
    ways[tight.rtol, "ours dopri5, recompute, float64"] = lambda true: measured(ours(tight), exact, true, None)
    asked = {key: way for key, way in ways.items() if options.only in key[1]}
    return [{"tolerance": tol, "contender": name} | way(true) | common for (tol, name), way in asked.items()]


def table(rows: list[dict]) -> str:
    """Return the rows as a table in markdown."""
    columns = {
        "state_error": "State", "input_error": "Input gradient", "input_cosine_worst": "worst cosine",
        "weight_error": "Weight gradient", "weight_cosine": "cosine", "own_input_error": "Own input gradient",
        "own_weight_error": "Own weight gradient",
        "rounding_in_tolerances": "Rounding", "evaluations": "Evaluations",
    }  # fmt: skip
    heads = ["Weights", "Activation", "Horizon", "Tolerance", "Contender", *columns.values()]
    lines = [heads, ["---"] * 5 + ["---:"] * len(columns)]
    for row in sorted(rows, key=lambda row: [row[k] for k in _SETTINGS[:3]] + [-row["tolerance"]]):
        first = [row["weights"], row["activation"], f"{row['horizon']:g}", f"{row['tolerance']:g}", row["contender"]]
        lines.append([*first, *[cell(row, name) for name in columns]])
    return markdown(lines)


def main() -> None:
    """Parse, measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", choices=["random", "trained"], default="random")
    parser.add_argument("--activation", choices=["relu", "softplus", "tanh"], default="relu", help="of random weights")
    parser.add_argument("--horizon", type=float, default=1.0)
    parser.add_argument("--tolerances", type=float, nargs="+", default=(1e-3, 1e-5))
    parser.add_argument("--reference", type=float, default=1e-6, help="tolerance of the float64 adjoint")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--data", type=Path, help="folder with cifar10/{train,test}.parquet, for trained weights")
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
