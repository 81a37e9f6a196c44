"""The last two layers of every classifier here: global pooling and one linear layer."""

from enum import Enum

from jaxtyping import Float
from torch import Tensor, nn


class Pooling(Enum):
    """How the pixels of a channel become one number."""

    AVERAGE = "average"
    MAX = "max"


class GlobalAveragePool(nn.Module):
    """Average each channel over all pixels. Unlike adaptive pooling, its gradient is deterministic on every device."""

    def forward(self, features: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels"]:
        """Return the averages."""
        return features.mean((2, 3))


class GlobalMaxPool(nn.Module):
    """Take the largest value of each channel; of equal ones the gradient is shared."""

    def forward(self, features: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels"]:
        """Return the maxima."""
        return features.amax((2, 3))


def classification_head(channels: int, num_classes: int, pooling: Pooling = Pooling.AVERAGE) -> nn.Sequential:
    """Return global pooling followed by a linear layer, He-initialised with bias 0.

    Args:
        channels: Channels of the features, >= 1.
        num_classes: Classes to tell apart, >= 1.
        pooling: How the pixels of a channel become one number.
    """
    linear = nn.Linear(channels, num_classes)
    nn.init.kaiming_normal_(linear.weight)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(GlobalAveragePool() if pooling is Pooling.AVERAGE else GlobalMaxPool(), linear)
