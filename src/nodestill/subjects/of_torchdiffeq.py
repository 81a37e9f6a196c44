"""A model that calls torchdiffeq as a `Subject`: its calls answered by our solver are the other ways to its gradient."""

import importlib.util
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from nodestill.attacks import LogitsFn, Subject
from nodestill.attacks.subject import GAVE_UP
from nodestill.errors import InputError, NodestillError
from nodestill.ode import Solution
from nodestill.shapes import Images, Logits
from nodestill.subjects.of_model import FEW, errors_of
from nodestill.subjects.redirect import Change, RedirectedSolve, by_adjoint, exactly, in_few_steps, redirected, tightened


def subject_of_torchdiffeq(model: nn.Module, images: Images | None = None) -> Subject:
    """Return what an attack and an audit may know of a model that calls torchdiffeq.

    It is scored as it is. Where torchdiffeq gives up on an image it stops, so its whole batch gets NaN logits. The paths:
    `autograd` is the model as it is; under the others its calls are solved by ours, with steps shared by the batch.
    `adjoint` has the gradient of the adjoint equation; `exact` that of our steps, of which torchdiffeq's own differs by the
    derivative of its first step size, which depends on the whole batch; `tight` and `fixed` as in `subject_of_model`.

    Args:
        model: In evaluation mode, its parameters frozen; maps images in [0, 1] to logits.
        images: A few images, to see once how the model calls torchdiffeq. None takes two grey ones of 32 x 32.

    Returns:
        The subject. Evaluations are those of our solves, which take nearly torchdiffeq's steps.

    Raises:
        InputError: If torchdiffeq is missing or not called, if a call cannot be redirected, or if no logits come out.
    """
    images = grey(model) if images is None else images
    if solves := seen("The model", model, images):
        return subject_of_solves(model, solves, images)
    raise InputError("The model made no call of torchdiffeq's odeint or odeint_adjoint. Attack it as Subject(model).")


def subject_of_solves(model: nn.Module, solves: Sequence[RedirectedSolve], images: Images) -> Subject:
    """Return the subject of a model whose calls of torchdiffeq on some images were seen."""
    changes: dict[str, Change] = {
        "adjoint": by_adjoint,
        "exact": exactly,
        "tight": tightened,
        "fixed": lambda solver: in_few_steps(solver, FEW),
    }
    limits, deployed = [solve.max_steps for solve in solves], _deployed(model)
    adapts = all(solve.asked.steps is None and len(solve.solution.error) == len(images) for solve in solves)
    return Subject(
        logits=deployed,
        gradient_paths={"autograd": deployed, **{name: _under(change, model) for name, change in changes.items()}},
        evaluations=lambda images: _counted(model, images),
        effort=(lambda images: errors_of(_solutions(model, images))) if adapts else None,
        max_steps=None if None in limits else max(limit for limit in limits if limit is not None),
        module=model,
    )


def _under(change: Change, model: nn.Module) -> LogitsFn:
    def logits(images: Images) -> Logits:
        with redirected(change):
            return model(images)

    return logits


def _deployed(model: nn.Module) -> LogitsFn:
    def logits(images: Images) -> Logits:
        try:
            return model(images)
        except AssertionError as error:
            if not str(error).startswith(GAVE_UP):
                raise
        return torch.nan * _under(lambda solver: in_few_steps(solver, 1), model)(images)  # the right shape, and a gradient

    return logits


def _solutions(model: nn.Module, images: Images) -> list[Solution]:
    with redirected(exactly) as solves:
        model(images)
    return [solve.solution for solve in solves]


def _counted(model: nn.Module, images: Images) -> Int64[Tensor, " batch"]:
    total = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    with torch.no_grad():
        for counts in (solution.stats.evaluations for solution in _solutions(model, images)):
            total += counts if len(counts) == len(images) else counts.max()  # a state may hold several rows an image
    return total


def grey(model: nn.Module) -> Images:
    """Return two grey images of 32 x 32, where the model is."""
    return torch.full((2, 3, 32, 32), 0.5, device=next(model.parameters(), torch.zeros(())).device)


def seen(name: str, model: nn.Module, images: Images) -> Sequence[RedirectedSolve]:
    """Return what one forward pass asks of torchdiffeq, after checking that logits come out of it."""
    there = importlib.util.find_spec("torchdiffeq") is not None
    block: AbstractContextManager[list[RedirectedSolve]] = redirected() if there else nullcontext([])
    try:
        with torch.no_grad(), block as solves:
            logits = model(images)
    except NodestillError:
        raise
    except Exception as error:
        raise InputError(
            f"{name} fails on images of shape {tuple(images.shape)}: {type(error).__name__}: {error}. "
            "It must take floats in [0, 1], shape (batch, 3, height, width). Try it on images of the size it is made for."
        ) from error
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(images) or not logits.is_floating_point():
        seen = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise InputError(f"{name} must return logits of shape (batch, classes), got {seen}. Return the logits alone.")
    return solves
