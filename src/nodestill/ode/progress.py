"""A problem that is to be solved, and how far a batch is on its way: what all loops of a solve share."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from nodestill.ode.field import Field, PerImage, like_state
from nodestill.ode.solver import Solver, SolveStats, failures
from nodestill.ode.tableaus import Tableau

Sizes = Sequence[Sequence[PerImage]]  # step sizes to take: for each target, one row of the batch after another


class Problem(NamedTuple):
    """An initial value problem with everything that decides how it is solved. Times are counted from t0, upwards."""

    field: Field
    tableau: Tableau
    solver: Solver
    t0: float
    sign: float  # -1 to solve backwards in time
    targets: tuple[float, ...]  # distances from t0 to land on, increasing; the last one is the end
    raises: bool = True  # whether one image that cannot be gone back with fails the backward pass

    def time(self, travelled: PerImage) -> PerImage:
        """Return the time at a distance from t0."""
        return self.t0 + self.sign * travelled


@dataclass
class Progress:
    """The state of a whole batch between two targets, and what has been counted on the way."""

    y: Tensor
    slope: Tensor
    size: PerImage  # step size to try next
    status: Tensor
    evaluations: Tensor
    rejected: Tensor
    tried: Tensor  # attempted steps of each image, so that a slow neighbour does not use up its limit
    error: PerImage
    attempts: int = 0
    sizes: list[PerImage] = field(default_factory=list)  # one row an attempt
    ends: list[Tensor] = field(default_factory=list)  # the state at each target
    reconstruction_error: PerImage | None = None  # of a reversible solve, written by its backward pass

    def stats(self) -> SolveStats:
        """Return what each image cost."""
        accepted = torch.stack(self.sizes).gt(0).sum(0) if self.sizes else torch.zeros_like(self.rejected)
        return SolveStats(self.evaluations, accepted, self.rejected)


def nowhere(y0: Tensor) -> Progress:
    """Return the progress of a batch that has not left its start, all counts zero."""
    count = torch.zeros(len(y0), dtype=torch.int64, device=y0.device)
    zero = torch.zeros(len(y0), dtype=torch.float64, device=y0.device)
    status, evaluations, rejected, tried = (count.clone() for _ in range(4))
    return Progress(y0, y0, zero, status, evaluations, rejected, tried, zero.clone())


def marked(progress: Progress) -> Tensor:
    """Return the states with those of failed images not a number, so that no one takes them for a result."""
    failed = like_state(failures(progress.status), progress.y).bool()
    return torch.where(failed, torch.nan, progress.y)  # masked_fill would lose the memory layout
