"""Pooling of the head."""

import torch

from nodestill.models import Pooling, classification_head


def test_each_pooling_against_torchs():
    features = torch.randn(3, 4, 5, 6)
    pools = {Pooling.AVERAGE: torch.nn.AdaptiveAvgPool2d(1), Pooling.MAX: torch.nn.AdaptiveMaxPool2d(1)}
    for pooling, theirs in pools.items():
        head = classification_head(4, 2, pooling)
        torch.testing.assert_close(head(features), head[1](theirs(features).flatten(1)))
