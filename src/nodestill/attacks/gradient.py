"""What all gradient attacks share: the gradient they follow, the result they return, the check at either end.

The loss is the cross-entropy with the true class, *summed* over the batch, so that batch size cannot scale a gradient.
Only the images are differentiated: parameters, buffers, mode and `.grad` of a model stay as they are.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int64
from torch import Tensor

from nodestill.attacks.budget import LinfBudget, require_admissible
from nodestill.attacks.subject import LogitsFn, predictions
from nodestill.errors import InputError
from nodestill.shapes import Images, Labels


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


def loss_gradient(logits_fn: LogitsFn, images: Images, labels: Labels) -> tuple[Images, Bool[Tensor, " batch"]]:
    """Differentiate the summed cross-entropy with respect to the images, and to nothing else.

    The cross-entropy is taken in float32 at least, whatever the dtype of the logits: in bfloat16 it is flat much sooner.

    Args:
        logits_fn: Maps images in [0, 1] to logits, differentiably.
        images: In [0, 1], shape (batch, 3, height, width).
        labels: True classes, 0 ... classes - 1, shape (batch,).

    Returns:
        The gradient with its non-finite entries set to zero; and per image whether it was zero or had such entries.

    Raises:
        InputError: If the logits do not depend on the images differentiably.
    """
    with torch.enable_grad():
        point = images.detach().requires_grad_(True)
        logits = logits_fn(point)
        loss = F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), labels, reduction="sum")
    if not loss.requires_grad:
        raise InputError(
            "The logits do not depend on the images differentiably. Gradient attacks need that: "
            "remove detach, no_grad or inference_mode from the model."
        )
    (gradient,) = torch.autograd.grad(loss, point)
    finite = torch.isfinite(gradient)
    clean = torch.where(finite, gradient, 0)
    bad = ~finite.flatten(1).all(1) | (clean == 0).flatten(1).all(1)
    return clean, bad


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
