"""What a solve keeps of its accepted steps for the backward pass, and the states that it makes again instead of keeping them.

Up to a budget of bytes the state at the start of each step is kept. Above it only every k-th step keeps its own, k the
smallest power of two that meets the budget or reaches the square root of the number of steps; the states between are made
again from the nearest one before, one stretch at a time: one more forward pass for memory of order sqrt(steps).

Source: Griewank 1992, "Achieving logarithmic growth of temporal and spatial complexity in reverse automatic differentiation",
section 2, for trading states against work; here in its simplest form, one level.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from nodestill.ode.field import Field, PerImage, shared_casts
from nodestill.ode.step import Kept, evaluate, take_step
from nodestill.ode.tableaus import Tableau


class Taken(NamedTuple):
    """One step of some images, as it was taken."""

    positions: Tensor | None  # in the batch; None is all of it
    t: PerImage
    h: PerImage  # signed; 0 for an image whose step was rejected
    state: Tensor | None  # where the step started; None, in a trace alone, if that is to be made again
    kept: tuple[Kept, ...]  # the evaluations that the solution needs; those that are missing in front are made again
    rejections: bool  # whether some h are 0; known, so that nobody need ask the device

    @property
    def y(self) -> Tensor:
        """Where the step started; whoever hears of a step is told that."""
        assert self.state is not None
        return self.state

    def only(self, chosen: Tensor) -> "Taken":
        """Return the step of some of its images, given as positions in it; its evaluations are those of others too."""
        positions = chosen if self.positions is None else self.positions[chosen]
        state = None if self.state is None else self.state[chosen]
        return Taken(positions, self.t[chosen], self.h[chosen], state, (), self.rejections)

    def accepted(self) -> "Taken":
        """Return the step of those images that accepted it."""
        return self.only(torch.nonzero(self.h)[:, 0]) if self.rejections else self

    def parts(self, images: int) -> Iterator["Taken"]:
        """Yield the step of no more than so many images at a time, shared out evenly; of parts without what was kept."""
        if len(self.t) <= images:
            yield self
            return
        for chosen in torch.arange(len(self.t), device=self.t.device).tensor_split(-(-len(self.t) // images)):
            yield self.only(chosen)


@runtime_checkable
class Steps(Protocol):
    """Whoever wants to hear of a solve's accepted steps."""

    keeps_evaluations: bool  # whether `Taken.kept` is of use

    def begin(self) -> None:
        """Hear that the steps towards the next target follow."""

    def add(self, taken: Taken) -> None:
        """Hear of one step, in the order of travel."""


class Trace:
    """The accepted steps of a solve, by target.

    Args:
        batch: Number of images.
        budget: Bytes of states to keep; beyond, states are given up down to the square root of the number of steps.
        keeps_evaluations: Whether to keep the evaluations of f as well. Then all states are kept.
    """

    def __init__(self, batch: int, budget: int, *, keeps_evaluations: bool) -> None:
        self.stretches: list[list[Taken]] = []
        self.keeps_evaluations = keeps_evaluations
        self._batch, self._budget = batch, budget
        self._spacing, self._bytes = 1, 0
        self.steps = 0  # how many were heard of, towards all targets: steps that any image accepted

    def begin(self) -> None:
        """Start the steps towards the next target."""
        self.stretches.append([])

    def add(self, taken: Taken) -> None:
        """Keep a step, and give up states that are too many by now."""
        steps = self.stretches[-1]
        steps.append(taken if len(steps) % self._spacing == 0 else taken._replace(state=None))
        self.steps += 1
        self._bytes += 0 if steps[-1].state is None else steps[-1].state.nbytes
        if not self.keeps_evaluations and self._spacing**2 < self.steps and self._bytes > self._budget:
            self._spacing *= 2
            self.stretches = [self._thinned(steps) for steps in self.stretches]
            self._bytes = sum(state.nbytes for state in self._states())

    def _thinned(self, steps: list[Taken]) -> list[Taken]:
        return [taken if i % self._spacing == 0 else taken._replace(state=None) for i, taken in enumerate(steps)]

    def _states(self) -> list[Tensor]:
        return [taken.state for steps in self.stretches for taken in steps if taken.state is not None]

    def leave_out(self, failed: Tensor) -> None:
        """Forget the steps of failed images: f may have no finite derivative where they went, and 0 * inf would spread."""
        healthy = ~failed
        for steps in self.stretches:
            for i, taken in enumerate(steps):
                chosen = torch.nonzero(healthy if taken.positions is None else healthy[taken.positions])[:, 0]
                steps[i] = taken.only(chosen)

    def hand_over(self) -> list[Tensor]:
        """Return the states that were kept, in order, and keep them no longer: autograd does, and frees them with its graph."""
        states = self._states()
        self.stretches = [[taken._replace(state=None) for taken in steps] for steps in self.stretches]
        return states

    def backwards(self, field: Field, tableau: Tableau, target: int, states: Sequence[Tensor]) -> Iterator[Taken]:
        """Yield the steps towards a target, the last one first, each with its state; `states` are those handed over.

        Evaluations that were kept are handed out once; a second pass makes them again.
        """
        steps, before = self.stretches[target], sum(-(-len(steps) // self._spacing) for steps in self.stretches[:target])
        for start in reversed(range(0, len(steps), self._spacing)):
            stretch = steps[start : start + self._spacing]
            stretch[0] = stretch[0]._replace(state=states[before + start // self._spacing])
            again = _states_again(field, tableau, stretch, self._batch)
            for i in reversed(range(start, start + len(stretch))):
                taken, steps[i] = stretch.pop(), steps[i]._replace(kept=())
                yield taken._replace(state=again.pop())

    def forget_evaluations(self) -> None:
        """Keep evaluations no longer: a further pass makes them again."""
        self.stretches = [[taken._replace(kept=()) for taken in steps] for steps in self.stretches]


def _states_again(field: Field, tableau: Tableau, steps: list[Taken], batch: int) -> list[Tensor]:
    """Return the states that some steps started from, of which only the first was kept."""
    first, states = steps[0].y, [steps[0].y]
    if len(steps) == 1:
        return states
    whole = placed(first.new_empty_strided((batch, *first.shape[1:]), first.stride()), steps[0].positions, first)
    with torch.no_grad(), shared_casts(whole.device):
        for before, after in pairwise(steps):
            moved = before._replace(state=states[-1]).accepted()
            if len(moved.t):
                whole = placed(whole, moved.positions, _end(field, tableau, moved))
            states.append(whole if after.positions is None else whole[after.positions])
    return states


def _end(field: Field, tableau: Tableau, taken: Taken) -> Tensor:
    slope, _ = evaluate(field, taken.t, taken.y, keep=False)
    return take_step(field, tableau.without_error, taken.t, taken.h, taken.y, slope, keep=False).y_next


def placed(whole: Tensor, index: Tensor | None, part: Tensor) -> Tensor:
    """Return the batch with some images replaced: never in place, the old states may be the caller's or kept for later."""
    if index is None:
        return part
    result = whole.clone()
    result[index] = part
    return result
