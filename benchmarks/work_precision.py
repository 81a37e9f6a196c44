"""How much error does an evaluation of f buy, in which library?

    python benchmarks/work_precision.py --data DIR
    python benchmarks/work_precision.py --draw

Five classic problems and, with --data, a trained Neural ODE on images of CIFAR-10 (DIR/cifar10/test.parquet), solved by four
libraries at tolerances rtol = atol from loose to tight. Errors are those of the end state, relative, against a reference whose
own doubt is in the row. Evaluations are counted by one wrapper around f for all: a call with k of n batch elements is k / n of
one. SciPy and torchdiffeq solve a batch as one system; torchode and nodestill control each element's steps, and only nodestill
lets those that have arrived leave. A solver goes no tighter once a solve with an error below 1e-2 has taken 5,000 evaluations,
and none goes beyond 20,000. Seconds are medians over the repeats. The rows replace those of the same problems and solvers in
benchmarks/results/work_precision.jsonl, and the figure is drawn from all of them.
"""

import argparse
import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from classic_problems import Problem, classic_problems, trained_problems
from counted_solvers import CONTENDERS, FAILURES, Counted
from nodestill.experiments.environment import environment
from rows import keep, read, run_script
from work_precision_figure import draw

RESULTS = Path(__file__).parent / "results" / "work_precision.jsonl"
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "work-precision.png"
TARGETS = (1e-3, 1e-6)
_MOST = 5_000  # evaluations


def measure(problem: Problem, library: str, method: str, tolerance: float, repeats: int) -> dict[str, Any]:
    """Solve a problem some times, or until it fails, and return its row; without a finite end state the error is None."""
    row: dict[str, Any] = {"problem": problem.name, "library": library, "method": method, "tolerance": tolerance}
    seconds, error, steps = [], math.nan, None
    while len(seconds) < repeats and "failure" not in row:
        f, started = Counted(problem.f, len(problem.y0)), time.perf_counter()
        try:
            with torch.no_grad():
                y1, steps = CONTENDERS[library, method](f, problem.y0, problem.t1, tolerance)
            error = problem.error(y1)
        except FAILURES as failure:
            row["failure"] = type(failure).__name__
        seconds.append(time.perf_counter() - started)
    found = {"error": error if math.isfinite(error) else None}
    found |= {"evaluations": f.evaluations, "seconds": statistics.median(seconds)}
    accepted, rejected = steps or (None, None)
    found |= {"accepted": accepted, "rejected": rejected, "batch": len(problem.y0), "reference_doubt": problem.doubt}
    found["repeats"] = len(seconds)
    return row | found


def rows_of(problem: Problem, methods: Sequence[str], repeats: int) -> list[dict[str, Any]]:
    """Return the rows of all solvers of some methods, from loose to tight."""
    rows = []
    for library, method in (contender for contender in CONTENDERS if contender[1] in methods):
        for tolerance in problem.tolerances:
            rows.append(measure(problem, library, method, tolerance, repeats))
            if rows[-1]["evaluations"] > _MOST and (rows[-1]["error"] or 1) < 1e-2:
                break
        print(f"{problem.name}: {library} {method}, {rows[-1]['evaluations']:.0f} evaluations at most", flush=True)
    return rows


def evaluations_for(rows: Sequence[dict[str, Any]], target: float) -> str:
    """Return the evaluations that a solver needs for an error: between the last tolerance that misses it and the next."""
    points = [(r["error"], r["evaluations"]) for r in sorted(rows, key=lambda r: -r["tolerance"]) if r["error"]]
    missed = [i for i, (error, _) in enumerate(points) if error > target]
    if not points or (missed and missed[-1] == len(points) - 1):
        return "–"
    if not missed:
        return f"≤ {points[0][1]:,.0f}"
    (e0, n0), (e1, n1) = points[missed[-1]], points[missed[-1] + 1]
    return f"{n0 * (n1 / n0) ** (math.log(e0 / target) / math.log(e0 / e1)):,.0f}"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return a table of the evaluations for errors of 1e-3 and 1e-6: a line for each solver, a column for each problem."""
    problems = list(dict.fromkeys(r["problem"] for r in rows))
    lines = ["| Method | Library | " + " | ".join(problems) + " |", "| --- | --- |" + " ---: |" * len(problems)]
    for library, method in CONTENDERS:
        own = [[r for r in rows if (r["problem"], r["library"], r["method"]) == (p, library, method)] for p in problems]
        cells = [" / ".join(evaluations_for(some, target) for target in TARGETS) for some in own]
        lines.append(f"| {method} | {library} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Parse, measure, write, draw, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with cifar10/test.parquet; without it, the classic problems alone")
    parser.add_argument("--draw", action="store_true", help="draw and print what was measured before")
    parser.add_argument(
        "--methods", nargs="+", default=[method for _, method in CONTENDERS], help="such as even4; default: all"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if not options.draw:
        problems = classic_problems() + (trained_problems(options.data) if options.data else [])
        made_with = {"environment": environment(torch.device("cpu"))}
        rows = [row | made_with for problem in problems for row in rows_of(problem, options.methods, options.repeats)]
        keep(rows, options.out, ("problem", "library", "method"))
    rows = read(options.out)
    draw(rows, options.out.with_suffix(".svg"), PICTURE)
    print(table(rows))


if __name__ == "__main__":
    run_script(main)
