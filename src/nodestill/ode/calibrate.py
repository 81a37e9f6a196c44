"""Choosing the first step of an adaptive solve by measurement, once, instead of probing it in every solve.

The result belongs into `Solver.first_step`, to be stored with the model. It is never carried from call to call: a solve must
not depend on what was solved before.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nodestill.errors import InputError
from nodestill.ode.solve import check_interval, solve
from nodestill.ode.solver import Solver, Status

_MOST_PARTS = 64
_AS_CHEAP = 1.02  # times the fewest evaluations: among first steps so cheap the error decides


class _Tried(NamedTuple):
    """A first step, what it cost an image on average, and the estimated error of the solve."""

    solver: Solver
    evaluations: float
    error: float


def calibrated(dynamics: nn.Module, y0: Float[Tensor, "batch *state"], t0: float, t1: float, solver: Solver) -> Solver:
    """Return a solver with the first step (a whole fraction of the interval) that needs the fewest evaluations of f.

    Of those that need at most 2 % more, it is the one with the smallest estimated error: it decides which steps follow.
    Fractions 1, 1/2, 1/3, ... are tried until one more part no longer pays; the error stays controlled by the tolerances.

    Args:
        dynamics: f, as for `solve`.
        y0: Initial states of training images: a hundred or so.
        t0: Start of the interval.
        t1: Its end.
        solver: An adaptive solver; its first step is ignored.

    Returns:
        The same solver with its `first_step` set.

    Raises:
        InputError: If the method takes fixed steps, t0 and t1 are the same, or no first step leads every state to t1.
    """
    if not solver.method.is_adaptive:
        raise InputError(f"{solver.method.value} takes equal steps, so there is no first step to calibrate. Set steps instead.")
    check_interval(t0, t1)
    tried, fewest = [], math.inf
    for parts in range(1, _MOST_PARTS + 1):
        tried.append(_tried(dynamics, y0, t0, t1, replace(solver, first_step=abs(t1 - t0) / parts)))
        fewest = min(fewest, tried[-1].evaluations)
        if parts >= 4 and tried[-1].evaluations > 1.2 * fewest:
            break
    if fewest == math.inf:
        raise InputError(
            "No first step leads every state to t1: solve once to see why, then loosen the tolerances or shorten t1."
        )
    return min((one for one in tried if one.evaluations <= _AS_CHEAP * fewest), key=lambda one: one.error).solver


def _tried(dynamics: nn.Module, y0: Tensor, t0: float, t1: float, solver: Solver) -> _Tried:
    with torch.no_grad():
        solution = solve(dynamics, y0, t0, t1, solver, raises=False)
    arrived = bool((solution.status == Status.DONE).all())
    evaluations = float(solution.stats.evaluations.double().mean()) if arrived else math.inf
    return _Tried(solver, evaluations, float(solution.error.double().mean()))
