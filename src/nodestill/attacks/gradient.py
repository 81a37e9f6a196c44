"""What all gradient attacks share: the gradient they follow, the result they return, the check at either end.

The loss is *summed* over the batch, so that batch size cannot scale a gradient. It is the cross-entropy with the true class
unless an attack says otherwise. Only the images are differentiated: parameters, buffers, mode and `.grad` of a model stay as
they are.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from nodestill.attacks.budget import LinfBudget, require_admissible
from nodestill.attacks.losses import AttackLoss, cross_entropy
from nodestill.attacks.subject import GAVE_UP, LogitsFn, predictions
from nodestill.errors import InputError
from nodestill.shapes import Images, Labels, Logits


class AttackResult(NamedTuple):
    """What an attack made of a batch."""

    images: Images  # in [0, 1], within the radius (checked)
    fooled: Bool[Tensor, " batch"]  # the final image is not predicted as its label; wrong clean images count too
    gradient_calls: int  # per image; of `mi_fgsm_curve`: those that no smaller radius had made already
    bad_gradients: Int64[Tensor, " batch"]  # steps at which this image's gradient was zero or not finite
    predictions: Int64[Tensor, " batch"]  # of the final images; -1 where the logits are not finite


def require_attackable(images: Images, labels: Labels) -> None:
    """Check the arguments of an attack.

    Args:
        images: Clean images, shape (batch, 3, height, width).
        labels: True classes, shape (batch,).

    Raises:
        InputError: If the batch is empty, images are not float32 or float64 in [0, 1], or labels do not match.
    """
    if images.dim() != 4:
        raise InputError(f"images must have shape (batch, 3, height, width), got {tuple(images.shape)}. Reshape them.")
    if images.dtype not in (torch.float32, torch.float64):
        raise InputError(f"images must be float32 or float64, got {images.dtype}: it cannot hold 1/255. Convert them.")
    if len(images) == 0 or len(labels) != len(images) or bool((labels < 0).any()):
        raise InputError(
            f"{len(labels)} labels do not fit {len(images)} images. Give at least one image, and one class >= 0 each."
        )
    if not bool(((images >= 0) & (images <= 1)).all()):
        low, high = float(images.amin()), float(images.amax())
        raise InputError(
            f"images must lie in [0, 1], got {low:.4g} to {high:.4g}. Pass pixels; normalisation belongs in the model."
        )


def require_keys(keys: Int64[Tensor, " keys"], images: Images) -> None:
    """Check that each image has a key of its random numbers.

    Raises:
        InputError: If there are more or fewer keys than images.
    """
    if len(keys) != len(images):
        raise InputError(f"{len(keys)} keys do not fit {len(images)} images. Give each image one: its place in the image set.")


class Ascent(NamedTuple):
    """The direction in which a loss grows at a batch of images, and what was seen on the way."""

    gradient: Images  # its non-finite entries set to zero
    bad: Bool[Tensor, " batch"]  # the gradient was zero or had non-finite entries
    loss: Float[Tensor, " batch"]
    logits: Logits  # detached: an attack sees for free whether it has succeeded


def loss_gradient(logits_fn: LogitsFn, images: Images, labels: Labels, loss: AttackLoss = cross_entropy) -> Ascent:
    """Differentiate a loss with respect to the images, and to nothing else.

    Args:
        logits_fn: Maps images in [0, 1] to logits, differentiably.
        images: In [0, 1], shape (batch, 3, height, width).
        labels: True classes, 0 ... classes - 1, shape (batch,).
        loss: What is to grow, one number per image; summed over the batch.

    Returns:
        The gradient, which images have a bad one, the losses and the logits.

    Raises:
        InputError: If the logits do not depend on the images differentiably.
    """
    with torch.enable_grad():
        point = images.detach().requires_grad_(True)
        logits = logits_fn(point)
        losses = loss(logits, labels)
        total = losses.sum()
    if not total.requires_grad:
        raise InputError(
            "The logits do not depend on the images differentiably. Gradient attacks need that: "
            "remove detach, no_grad or inference_mode from the model."
        )
    try:
        (gradient,) = torch.autograd.grad(total, point)
    except AssertionError as error:
        if not str(error).startswith(GAVE_UP):
            raise
        # torchdiffeq's adjoint gave up on its way back: none of these images has a gradient, which is counted
        gradient = torch.full_like(point, torch.nan)
    finite = torch.isfinite(gradient)
    clean = torch.where(finite, gradient, 0)
    bad = ~finite.flatten(1).all(1) | (clean == 0).flatten(1).all(1)
    return Ascent(clean, bad, losses.detach(), logits.detach())


def where_not_fooled(ascent: Ascent, labels: Labels, moved: Tensor, kept: Tensor) -> Tensor:
    """Return `moved`, except for images that were misclassified where the ascent was taken: those keep their position.

    Args:
        ascent: Taken at `kept`.
        labels: True classes, shape (batch,).
        moved: New positions, shape (batch, 3, height, width).
        kept: Old positions, same shape.
    """
    fooled = predictions(ascent.logits) != labels
    return torch.where(fooled[:, None, None, None], kept, moved)


def all_fooled(ascent: Ascent, labels: Labels) -> bool:
    """Return whether every image was misclassified where the ascent was taken; one read from the device."""
    return bool((predictions(ascent.logits) != labels).all())


def score(
    logits_fn: LogitsFn,
    images: Images,
    adversarial: Images,
    labels: Labels,
    budget: LinfBudget,
    bad_gradients: Int64[Tensor, " batch"],
    gradient_calls: int,
) -> AttackResult:
    """Classify the final images once more, after checking that the budget allows them.

    Args:
        logits_fn: Maps images in [0, 1] to logits.
        images: Clean images in [0, 1], shape (batch, 3, height, width).
        adversarial: Final images, shape of `images`.
        labels: True classes, shape (batch,).
        budget: Its radius in 1/255.
        bad_gradients: Steps with a zero or non-finite gradient, per image.
        gradient_calls: Gradients taken, per image.

    Returns:
        The result of the attack.

    Raises:
        NodestillError: If the images break the radius or the range: a mistake in the attack, not the caller's.
    """
    require_admissible(adversarial, images, budget.eps)
    with torch.no_grad():
        predicted = predictions(logits_fn(adversarial))
    return AttackResult(adversarial, predicted != labels, gradient_calls, bad_gradients, predicted)
