"""The attack inside a training: PGD on the model as it is at this step, for the robust objectives.

A Neural ODE with adaptive steps is attacked along the steps that its solver chooses for the clean batch. They are recorded once
and replayed at every step of the attack, which saves error control and rejected steps. The images found need not be the worst
that there are for the solver; the training sees them through the solver itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from nodestill.attacks import LinfBudget, LogitsFn, pgd
from nodestill.data import Batch
from nodestill.data.keyed import Stream, keyed_bits
from nodestill.models import NeuralODEClassifier
from nodestill.ode import StepRecord
from nodestill.shapes import Images
from nodestill.training.robust_objectives import Perturb, Raised


def inner_attack(model: nn.Module, budget: LinfBudget, seed: int) -> Perturb:
    """Return what perturbs the images of a batch so that something the model's logits say becomes large, by PGD.

    During the attack the model is in evaluation mode: BatchNorm uses its running statistics and leaves them alone, so that no
    image is perturbed by way of the others in its batch. Images alone are differentiated. Afterwards modes, parameters, their
    `.grad` and buffers are what they were. An image whose solve fails stays at its start.

    The start is uniform in the box and a function of (seed, index, view): another in each epoch, the same after a resume.

    Args:
        model: Not wrapped for several processes, whose synchronisation expects a backward pass to every call.
        budget: Radius, step and number of steps.
        seed: Of the starts.

    Source:
        Madry et al. 2018, section 2.1. RSLAD's authors attack in evaluation mode, as here, ARD's in training mode.
    """

    def perturb(batch: Batch, raised: Raised) -> Images:
        keys = keyed_bits(seed, Stream.ATTACK, batch.index, batch.view)
        with _evaluating(model):
            logits_fn = _as_attacked(model, batch.images)
            found = pgd(
                logits_fn,
                batch.images,
                batch.labels,
                budget,
                keys=keys,
                seed=seed,
                loss=lambda logits, labels: raised(logits),
            )
        return found.images

    return perturb


def _as_attacked(model: nn.Module, images: Images) -> LogitsFn:
    """Return a model as a function to be attacked around clean images; a failed solve gives NaN logits."""
    if not isinstance(model, NeuralODEClassifier):
        return model
    steps: tuple[StepRecord, ...] = ()
    if model.t1 and model.solver.method.is_adaptive:
        with torch.no_grad():
            steps = model.predict(images, raises=False).steps
    return lambda point: model.predict(point, replay=steps, raises=False).logits


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode and, afterwards, each of its modules back into the mode that it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        # Older versions of torch would use weights that were converted without a gradient again: they would never learn
        # (pytorch issue 112583).
        torch.clear_autocast_cache()
