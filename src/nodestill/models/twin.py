"""The discrete twin of a Neural ODE: residual blocks in place of each solve, as many as the solver evaluates f.

It costs the same multiply-accumulates per image, but each block has weights of its own. It tells what the shared weights and
the flow of a differential equation are worth at equal cost.
"""

from collections.abc import Sequence

import torch
from torch import nn

from nodestill.errors import InputError
from nodestill.models.dynamics import ConvDynamics
from nodestill.models.head import Pooling
from nodestill.models.normalize import NO_MEAN, NO_STD
from nodestill.models.stem import Stem, as_state, encoders, head_behind
from nodestill.shapes import Images, Logits


class DiscreteTwin(nn.Module):
    """y ← y + fᵢ(y), block after block, in place of y' = f(t, y).

    Args:
        encoders: What makes the initial state of each equation of the Neural ODE.
        blocks: For each equation the f of every block; each is called with t = 0.
        head: State → logits.
    """

    def __init__(self, encoders: Sequence[nn.Module], blocks: Sequence[Sequence[nn.Module]], head: nn.Module) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        self.blocks = nn.ModuleList(nn.ModuleList(some) for some in blocks)
        self.head = head

    def forward(self, images: Images) -> Logits:
        """Return the logits of images in [0, 1]."""
        y = images
        for encoder, blocks in zip(self.encoders, self.blocks, strict=True):
            y = as_state(encoder(y))  # a state as that of a solve: only f is in low precision
            assert isinstance(blocks, nn.ModuleList)  # a ModuleList does not say what it holds
            for f in blocks:
                y = y + f(y.new_zeros(1, 1, 1, 1), y)
        return self.head(y)


def discrete_twin(
    kind: Stem,
    blocks: Sequence[Sequence[ConvDynamics]],
    *,
    num_classes: int,
    mean: Sequence[float] = NO_MEAN,
    std: Sequence[float] = NO_STD,
    pooling: Pooling = Pooling.AVERAGE,
) -> DiscreteTwin:
    """Build the twin of a `node_classifier` from the blocks that take the place of each solve.

    Args:
        kind: How an image becomes a state.
        blocks: For each equation as many f as its solver makes evaluations, at least one. Their time kernels are frozen.
        num_classes: Classes to tell apart, >= 1.
        mean: Mean of each colour, in units of pixels in [0, 1].
        std: Deviation of each colour in the same units, > 0.
        pooling: How the head makes one number of each channel.

    Raises:
        InputError: If an equation has no block.
    """
    if not blocks or not all(blocks):
        counts = [len(some) for some in blocks]
        raise InputError(f"Every equation needs at least one block, got {counts}. Give as many as a solve evaluates f.")
    for f in (f for some in blocks for f in some):
        f.time_kernels.requires_grad_(False)  # at t = 0 they add nothing
    widths = [some[0].channels for some in blocks]
    head = head_behind(kind, widths[-1], num_classes, pooling)
    twin = DiscreteTwin(encoders(kind, widths, mean, std), blocks, head)
    return twin.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in the stubs
