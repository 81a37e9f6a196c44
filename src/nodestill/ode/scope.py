"""What the gradient of a solve can reach: y0 and the parameters of f, and images whose way back arrives.

Everything else is refused, not dropped.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nodestill.errors import InputError, SolveError
from nodestill.ode.progress import Problem
from nodestill.ode.step import Kept, evaluate

_log = logging.getLogger(__name__)

Frozen = Sequence[tuple[Tensor, int]]  # weights without a gradient, and how often each was written to before the solve


def check_scope(problem: Problem, y: Tensor, parameters: Sequence[Tensor], frozen: Frozen) -> None:
    """Check weights and leaves, the latter with an evaluation of one image at either end of the way.

    For backward passes that keep none which could be asked. What f reads only between the ends is not seen: that would take
    an evaluation at every step.
    """
    check_weights(problem.field.dynamics, parameters, frozen)
    for travelled in (0.0, problem.targets[-1]):
        t = problem.time(torch.full((len(y[:1]),), travelled, dtype=torch.float64, device=y.device))
        check_leaves(weights_of(parameters, frozen), *evaluate(problem.field.uncompiled, t, y[:1], True)[1])


def asked_for(ctx: Any, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Return the parameters whose gradient this very backward pass will use: none in an attack, which wants the image's.

    `ctx.needs_input_grad` only knows which of them require a gradient.
    """
    nodes = [node for node, _ in ctx.next_functions[-len(parameters) :]] if parameters else []
    return [p for p, node in zip(parameters, nodes, strict=True) if node is not None and _will_run(node)]


def _will_run(node: Any) -> bool:
    try:
        return torch._C._will_engine_execute_node(node)
    except RuntimeError:  # a leaf that is itself asked for by torch.autograd.grad
        return True


def frozen_weights(dynamics: nn.Module) -> Frozen:
    """Return the weights that autograd does not watch. Buffers are not among them: layers may count in them."""
    return [(p, p._version) for p in dynamics.parameters() if not p.requires_grad and not p.is_inference()]


def check_weights(dynamics: nn.Module, parameters: Sequence[Tensor], frozen: Frozen) -> None:
    """Refuse to go back through an f whose weights are others by now: steps made again would be others.

    Autograd itself refuses where a weight that a gradient is wanted for was changed in place.

    Raises:
        InputError: If a weight was exchanged since the solve, one with a gradient frozen, or a frozen one changed.
    """
    now = {id(p): p for p in dynamics.parameters()}
    gone = any(id(p) not in now for p, _ in frozen) or any(id(p) not in now or not p.requires_grad for p in parameters)
    if gone or any(p._version != version for p, version in frozen):
        raise InputError(
            "The weights of f are not those that it was solved with: one was replaced, frozen, or changed while frozen since. "
            "Go back through a solve before that; with torch.func.functional_call, inside the function called."
        )


def weights_of(parameters: Sequence[Tensor], frozen: Frozen) -> list[Tensor]:
    """Return all weights of f. Those that were frozen when it was solved have no gradient, even if watched by now."""
    return [*parameters, *[p for p, _ in frozen]]


def check_leaves(parameters: Sequence[Tensor], kept: Kept) -> None:
    """Refuse an f that reads tensors with a gradient which a solve could not return, as one evaluation shows.

    Raises:
        InputError: If f depends on a tensor that requires a gradient and is not one of its parameters.
    """
    known = {id(p) for p in parameters}
    seen = {p.grad_fn for p in parameters if p.grad_fn is not None}  # computed weights end the search
    pending = [kept.slope.grad_fn]
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and leaf is not kept.y and id(leaf) not in known:
            raise InputError(
                f"f depends on a tensor of shape {tuple(leaf.shape)} that requires a gradient but is not one of its "
                "parameters, so its gradient would be lost. Register it as a parameter of f, or detach it."
            )
        pending += [parent for parent, _ in node.next_functions]


def refuse_images(problem: Problem, message: str) -> None:
    """Raise for images that cannot be gone back with, or log them if the solve was asked not to raise.

    Raises:
        SolveError: With the message, if the problem raises.
    """
    if problem.raises:
        raise SolveError(message)
    _log.warning("%s Their gradient is not a number, and they have no share in that of the weights.", message)
