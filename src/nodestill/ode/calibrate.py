"""Choosing the first step of an adaptive solve by measurement, once, instead of probing it in every solve.

The result belongs into `Solver.first_step`, to be stored with the model. It is never carried from call to call: a solve must
not depend on what was solved before.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nodestill.errors import InputError
from nodestill.ode.solve import check_interval, solve
from nodestill.ode.solver import Solver, Status

_MOST_PARTS = 64


def calibrated(dynamics: nn.Module, y0: Float[Tensor, "batch *state"], t0: float, t1: float, solver: Solver) -> Solver:
    """Return a solver with the first step (a whole fraction of the interval) that needs the fewest evaluations of f.

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
    best: tuple[float, Solver] | None = None
    for parts in range(1, _MOST_PARTS + 1):
        tried = replace(solver, first_step=abs(t1 - t0) / parts)
        cost = _cost(dynamics, y0, t0, t1, tried)
        if best is None or cost < best[0]:
            best = (cost, tried)
        elif parts >= 4 and cost > 1.2 * best[0]:
            break
    if best is None or best[0] == float("inf"):
        raise InputError(
            "No first step leads every state to t1: solve once to see why, then loosen the tolerances or shorten t1."
        )
    return best[1]


def _cost(dynamics: nn.Module, y0: Tensor, t0: float, t1: float, solver: Solver) -> float:
    with torch.no_grad():
        solution = solve(dynamics, y0, t0, t1, solver, raises=False)
    arrived = bool((solution.status == Status.DONE).all())
    return float(solution.stats.evaluations.double().mean()) if arrived else float("inf")
