"""The last two layers of every classifier here: global average pooling and one linear layer."""

from jaxtyping import Float
from torch import Tensor, nn


class GlobalAveragePool(nn.Module):
    """Average each channel over all pixels. Unlike adaptive pooling, its gradient is deterministic on every device."""

    def forward(self, features: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels"]:
        """Return the averages."""
        return features.mean((2, 3))


def classification_head(channels: int, num_classes: int) -> nn.Sequential:
    """Return global average pooling followed by a linear layer, He-initialised with bias 0.

    Args:
        channels: Channels of the features, >= 1.
        num_classes: Classes to tell apart, >= 1.
    """
    linear = nn.Linear(channels, num_classes)
    nn.init.kaiming_normal_(linear.weight)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(GlobalAveragePool(), linear)
