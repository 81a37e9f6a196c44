"""What does a kink of f cost a Runge-Kutta method, and does its error estimate see it?

    python benchmarks/kinks.py

A kink: at the time s of a step of size 1 the derivative of the slope jumps by 1, as behind a ReLU. The step then errs by the
second Peano kernel K(s) = (1 - s)^2 / 2 - sum_i b_i max(c_i - s, 0), and estimates - sum_i e_i max(c_i - s, 0). "Kernel" and
"seen" are root mean squares over s, of K and of the estimate over that of K. Many kinks in steps of size h cost h^2 K, so
methods of different numbers of stages are compared by stages^2 times K. The least kernel for as many nodes and that order is
found by minimisation. Beside it what an equal number of evaluations gives: equal steps over [0, 1] with the f of
solve_speed.py (64 channels, random weights), relative errors of the end state against a float64 solve at 1e-6, mean over
seeds.
"""

import math
from functools import cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from nodestill.experiments.environment import environment
from nodestill.models import Activation, ConvDynamics, Norm
from nodestill.ode import Method, Solver, StepRecord, solve
from nodestill.ode.tableaus import tableau
from rows import keep, markdown, run_script
from solve_speed import relative

RESULTS = Path(__file__).parent / "results" / "kinks.jsonl"
METHODS = (Method.EVEN4, Method.EVEN3, Method.BOSH3, Method.DOPRI5, Method.TSIT5, Method.HEUN_EULER)
EVALUATIONS, SEEDS, _CHANNELS = 30, 3, 64
_PLACES = np.linspace(0, 1, 4_001)
KINDS = tuple(product((Activation.RELU, Activation.SOFTPLUS), Norm))


def kernel(nodes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return K(s) for many s in [0, 1]."""
    return (1 - _PLACES) ** 2 / 2 - weights @ np.maximum(nodes[:, None] - _PLACES, 0)


def rms(values: np.ndarray) -> float:
    """Return the root mean square."""
    return float(np.sqrt((values**2).mean()))


def of_method(method: Method) -> dict[str, float]:
    """Return the number of stages, the kernel and how much of it the error estimate sees."""
    table = tableau(method)
    nodes, weights, error = (np.array([float(x) for x in row]) for row in (table.c, table.b, table.error))
    cost = rms(kernel(nodes, weights))
    seen = rms(error @ np.maximum(nodes[:, None] - _PLACES, 0)) / cost
    return {"stages": table.solution_stages, "order": table.order, "kernel": cost, "seen": seen}


def least(stages: int, order: int) -> float:
    """Return the smallest kernel of all nodes, the first one 0, and weights that integrate polynomials up to that order."""

    def smallest(inner: np.ndarray) -> float:
        nodes = np.array([0.0, *inner])
        if np.diff(nodes).min() < 0.02 or nodes[-1] > 1:
            return 1.0
        powers, integrals = np.vander(nodes, order, increasing=True).T, 1 / np.arange(1, order + 1)
        some = np.linalg.lstsq(powers, integrals, rcond=None)[0]
        free = np.linalg.svd(powers)[2][order:]  # what the conditions leave of the weights enters K linearly
        if not len(free):
            return rms(kernel(nodes, some))
        moves = np.stack([kernel(nodes, row) - kernel(nodes, 0 * row) for row in free], 1)
        return rms(kernel(nodes, some) - moves @ np.linalg.lstsq(moves, kernel(nodes, some), rcond=None)[0])

    start = np.arange(1, stages) / (stages - 0.5)
    return float(minimize(smallest, start, method="Nelder-Mead", options={"maxiter": 4_000, "xatol": 1e-6, "fatol": 1e-9}).fun)


class Net(NamedTuple):
    """An initial value problem and its end state."""

    f: ConvDynamics
    y0: Tensor
    y1: Tensor


@cache
def net(activation: Activation, norm: Norm, seed: int) -> Net:
    """Return a problem with random weights."""
    torch.manual_seed(seed)
    f = ConvDynamics(_CHANNELS, norm=norm, activation=activation, t1=1.0).double()
    y0 = torch.randn(2, _CHANNELS, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        return Net(f, y0, solve(f, y0, 0.0, 1.0, Solver(rtol=1e-6, atol=1e-6, max_steps=100_000)).y1)


def measured(method: Method, activation: Activation, norm: Norm) -> float:
    """Return the mean relative error of equal steps with `EVALUATIONS` evaluations of f."""
    steps, errors = EVALUATIONS // tableau(method).solution_stages, []
    for f, y0, y1 in (net(activation, norm, seed) for seed in range(SEEDS)):
        record = StepRecord(torch.full((steps, len(y0)), 1 / steps, dtype=torch.float64))
        with torch.no_grad():
            errors.append(relative([solve(f, y0, 0.0, 1.0, Solver(method), replay=record).y1], [y1]))
    return math.fsum(errors) / len(errors)


def name_of(kind: tuple[Activation, Norm]) -> str:
    """Return the name of a kind of net."""
    activation, norm = kind
    return f"{activation.value}, {'GroupNorm' if norm is Norm.GROUP else 'no norm'}"


def measure() -> list[dict]:
    """Return a row for each method."""
    rows = []
    for method in METHODS:
        found = of_method(method)
        errors = {name_of(kind): measured(method, *kind) for kind in KINDS}
        rows.append({"method": method.value} | found | {"least": least(int(found["stages"]), int(found["order"]))} | errors)
        rows[-1]["environment"] = environment(torch.device("cpu"))
    return rows


def table(rows: list[dict]) -> str:
    """Return a line for each method."""
    nets = [name_of(kind) for kind in KINDS]
    heads = ["Method", "Order", "Stages", "Kernel", "Least", "Stages² × kernel", "Seen", *(f"Error, {net}" for net in nets)]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for row in rows:
        figures = [
            f"{row['kernel']:.4f}",
            f"{row['least']:.4f}",
            f"{row['stages'] ** 2 * row['kernel']:.3f}",
            f"{row['seen']:.2f}",
        ]
        lines.append([row["method"], str(row["order"]), str(row["stages"]), *figures, *(f"{row[net]:.1e}" for net in nets)])
    return markdown(lines)


if __name__ == "__main__":
    run_script(lambda: print(table(keep(measure(), RESULTS, ("method",)))))
