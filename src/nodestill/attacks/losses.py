"""What an attack increases: one number per image, larger where the classifier is closer to a mistake or deeper in one.

They differ in where their gradient vanishes. Cross-entropy is flat where the classifier is sure; the margin is not, and the
difference of logits ratio does not change if all logits are multiplied by a number.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from nodestill.errors import InputError
from nodestill.shapes import Labels, Logits

AttackLoss = Callable[[Logits, Labels], Float[Tensor, " batch"]]

_TINY = 1e-12  # under the ratio of DLR, as in the authors' code: logits that are all alike give zero


def cross_entropy(logits: Logits, labels: Labels) -> Float[Tensor, " batch"]:
    """Return -log softmax(z)_y, in float32 at least: in bfloat16 it is flat much sooner."""
    return F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), labels, reduction="none")


def margin(logits: Logits, labels: Labels) -> Float[Tensor, " batch"]:
    """Return the largest logit of another class minus that of the label: positive where the image is misclassified.

    Source:
        Carlini and Wagner 2017, "Towards Evaluating the Robustness of Neural Networks", f6.
    """
    own = logits.gather(1, labels[:, None])[:, 0]
    return logits.masked_fill(_one_hot(logits, labels), -torch.inf).amax(1) - own


def dlr(logits: Logits, labels: Labels) -> Float[Tensor, " batch"]:
    """Return the difference of logits ratio, -(z_y - max_{i != y} z_i) / (z_(1) - z_(3)), z_(k) the k-th largest.

    Raises:
        InputError: If there are fewer than three classes: then there is no third logit to divide by.

    Source:
        Croce and Hein 2020, "Reliable evaluation of adversarial robustness", eq. 6.
    """
    ranked = _ranked(logits, 3)
    return margin(logits, labels) / (ranked[:, 0] - ranked[:, 2] + _TINY)


def dlr_towards(targets: Labels) -> AttackLoss:
    """Return the targeted difference of logits ratio, -(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2).

    Args:
        targets: The class t that each image is to be taken for, shape (batch,).

    Returns:
        A loss of images in the order of `targets`.

    Raises:
        InputError: If there are fewer than four classes.

    Source:
        Croce and Hein 2020, eq. 7.
    """

    def loss(logits: Logits, labels: Labels) -> Float[Tensor, " batch"]:
        ranked = _ranked(logits, 4)
        gap = _of_class(logits, labels) - _of_class(logits, targets)
        return -gap / (ranked[:, 0] - (ranked[:, 2] + ranked[:, 3]) / 2 + _TINY)

    return loss


def likely_targets(logits: Logits, labels: Labels, count: int) -> Int64[Tensor, "targets batch"]:
    """Return the classes with the largest logits beside the label, the likeliest first; at most `count` of them.

    Logits that are not numbers come last.
    """
    usable = torch.nan_to_num(logits, nan=-torch.inf).masked_fill(_one_hot(logits, labels), -torch.inf)
    return usable.argsort(1, descending=True)[:, : min(count, logits.shape[1] - 1)].t()


def _one_hot(logits: Logits, labels: Labels) -> Bool[Tensor, "batch classes"]:
    return torch.arange(logits.shape[1], device=logits.device) == labels[:, None]


def _of_class(logits: Logits, classes: Labels) -> Float[Tensor, " batch"]:
    return logits.gather(1, classes[:, None])[:, 0]


def _ranked(logits: Logits, needed: int) -> Float[Tensor, "batch needed"]:
    if logits.shape[1] < needed:
        raise InputError(
            f"This loss needs at least {needed} classes, got logits of {logits.shape[1]}. Use the margin or cross-entropy."
        )
    return logits.topk(needed, dim=1).values
