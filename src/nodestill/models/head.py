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


class MeanLinear(nn.Linear):
    """A linear layer that averages over its inputs instead of adding them up, without bias, its weights of deviation 1.

    A step of a given size then changes the logits as little as one of a bias further in front does.

    Args:
        features: Inputs, >= 1.
        num_classes: Outputs, >= 1.

    Source:
        Jordan 2024, airbench94_muon.
    """

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__(features, num_classes, bias=False)
        nn.init.normal_(self.weight)

    def forward(self, features: Float[Tensor, "batch channels"]) -> Float[Tensor, "batch classes"]:
        """Return the averages."""
        return super().forward(features / self.in_features)


def classification_head(
    channels: int, num_classes: int, pooling: Pooling = Pooling.AVERAGE, *, mean_over_channels: bool = False
) -> nn.Sequential:
    """Return global pooling followed by a linear layer, He-initialised with bias 0.

    Args:
        channels: Channels of the features, >= 1.
        num_classes: Classes to tell apart, >= 1.
        pooling: How the pixels of a channel become one number.
        mean_over_channels: Whether the last layer is a `MeanLinear` instead.
    """
    pool = GlobalAveragePool() if pooling is Pooling.AVERAGE else GlobalMaxPool()
    if mean_over_channels:
        return nn.Sequential(pool, MeanLinear(channels, num_classes))
    linear = nn.Linear(channels, num_classes)
    nn.init.kaiming_normal_(linear.weight)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(pool, linear)
