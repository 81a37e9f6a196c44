"""The momentum iterative fast gradient sign method, at one radius or at all radii of a curve for the price of few.

    g ← momentum · g + ∇L / ‖∇L‖₁        (norm per image, no floor; a zero gradient adds nothing)
    x ← clip(x + step · sign g)           (to the radius and to [0, 1])

Sharing: there is no random start and the paper's step is 1/255 whatever the radius, so a budget of e/255 cannot bind in
the first e steps, and all larger radii take the same ones. One trunk of max(e) steps and a branch of s(e) - e steps per
radius give every radius exactly the images of a run of its own: 64 gradients instead of 254 for radii 1 ... 20.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nodestill.attacks.budget import LinfBudget, paper_budget
from nodestill.attacks.gradient import AttackResult, loss_gradient, require_attackable, score, where_not_fooled
from nodestill.attacks.lattice import Lattice
from nodestill.attacks.subject import LogitsFn
from nodestill.errors import InputError
from nodestill.shapes import Images, Labels


class _State(NamedTuple):
    position: Float[Tensor, "batch 3 height width"]  # in units of the lattice
    velocity: Float[Tensor, "batch 3 height width"]  # g, the accumulated gradient
    bad_gradients: Int64[Tensor, " batch"]


class _Problem(NamedTuple):
    logits_fn: LogitsFn
    lattice: Lattice
    labels: Labels
    momentum: float
    until_fooled: bool = False

    def start(self) -> _State:
        return _State(self.lattice.origin, torch.zeros_like(self.lattice.origin), torch.zeros_like(self.labels))

    def advance(self, state: _State, budget: LinfBudget, steps: int) -> _State:
        for _ in range(steps):
            state = self._step(state, budget)
        return state

    def _step(self, state: _State, budget: LinfBudget) -> _State:
        ascent = loss_gradient(self.logits_fn, self.lattice.at(state.position), self.labels)
        velocity = self.momentum * state.velocity + l1_normalized(ascent.gradient)
        position = self.lattice.move(state.position, budget.step_255 * velocity.sign(), budget.eps_255)
        if self.until_fooled:
            position = where_not_fooled(ascent, self.labels, position, state.position)
        return _State(position, velocity, state.bad_gradients + ascent.bad)

    def score(self, state: _State, budget: LinfBudget, gradient_calls: int) -> AttackResult:
        final = self.lattice.at(state.position)
        clean = self.lattice.images
        return score(self.logits_fn, clean, final, self.labels, budget, state.bad_gradients, gradient_calls)


def l1_normalized(gradient: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
    """Divide each image's gradient by its own L1 norm; a zero gradient stays zero, however small others are.

    Args:
        gradient: Finite floats, shape (batch, 3, height, width).

    Returns:
        Per image a gradient of L1 norm 1, or zero.
    """
    peak = gradient.abs().amax((1, 2, 3), keepdim=True)
    scaled = gradient / torch.where(peak > 0, peak, 1)  # first, so that the sum can neither overflow nor vanish
    norm = scaled.abs().sum((1, 2, 3), keepdim=True)
    return scaled / torch.where(norm > 0, norm, 1)


def mi_fgsm(
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
    budget: LinfBudget,
    *,
    momentum: float = 1.0,
    until_fooled: bool = False,
) -> AttackResult:
    """Perturb images with the momentum iterative fast gradient sign method.

    The equations are at the head of this module. Pixels made from bytes stay on the grid of bytes.

    Args:
        logits_fn: Maps images in [0, 1] to logits; must be deterministic.
        images: Clean images in [0, 1], float32 or float64, shape (batch, 3, height, width).
        labels: True classes, 0 ... classes - 1, shape (batch,).
        budget: Radius, step and number of steps, in 1/255.
        momentum: Decay μ >= 0. With 0 this is the basic iterative method.
        until_fooled: Whether an image stays where it is first misclassified, as `logits_fn` sees it.

    Returns:
        Adversarial images in [0, 1] at most `budget.eps` from `images` in every pixel, and how they fared.

    Raises:
        InputError: If images leave [0, 1], labels do not match the batch, or momentum is negative.

    Source:
        Dong et al. 2018, "Boosting Adversarial Attacks with Momentum", eqs. 6-7.
        Differs: the step is given, not eps / steps, as in Chu et al. 2022; a zero gradient is defined to stay zero.
    """
    problem = _pose(logits_fn, images, labels, momentum)._replace(until_fooled=until_fooled)
    state = problem.advance(problem.start(), budget, budget.steps)
    return problem.score(state, budget, budget.steps)


def mi_fgsm_curve(
    logits_fn: LogitsFn, images: Images, labels: Labels, eps_255: Sequence[int], *, momentum: float = 1.0
) -> Iterator[tuple[int, AttackResult]]:
    """Run `mi_fgsm` with the paper's budget at each radius, sharing the steps that radii have in common.

    Bit for bit the images of separate runs, if `logits_fn` is deterministic. The `gradient_calls` of a result are those
    that no smaller radius had made already, so their sum is what the curve cost.

    Args:
        logits_fn: Maps images in [0, 1] to logits; must be deterministic.
        images: Clean images in [0, 1], float32 or float64, shape (batch, 3, height, width).
        labels: True classes, 0 ... classes - 1, shape (batch,).
        eps_255: Radii in 1/255, in any order; repetitions are ignored.
        momentum: Decay μ >= 0.

    Returns:
        Pairs of radius and result, the smallest radius first, each computed when it is asked for.

    Raises:
        InputError: If a radius is out of range, images leave [0, 1], labels do not match, or momentum is negative.

    Source:
        Dong et al. 2018, eqs. 6-7; budgets of Chu et al. 2022, section 4.
    """
    budgets = [paper_budget(eps) for eps in sorted(set(eps_255))]
    return _branches(_pose(logits_fn, images, labels, momentum), budgets)


def _branches(problem: _Problem, budgets: Sequence[LinfBudget]) -> Iterator[tuple[int, AttackResult]]:
    """Grow the trunk to each radius in turn; leave it there for the steps in which that radius binds."""
    trunk, taken = problem.start(), 0
    for budget in budgets:
        trunk = problem.advance(trunk, budget, budget.eps_255 - taken)
        branch = problem.advance(trunk, budget, budget.steps - budget.eps_255)
        yield budget.eps_255, problem.score(branch, budget, budget.steps - taken)
        taken = budget.eps_255


def _pose(logits_fn: LogitsFn, images: Images, labels: Labels, momentum: float) -> _Problem:
    require_attackable(images, labels)
    if not momentum >= 0:
        raise InputError(f"momentum must not be negative, got {momentum}. 1.0 is the paper's, 0.0 switches it off.")
    return _Problem(logits_fn, Lattice.around(images), labels, momentum)
