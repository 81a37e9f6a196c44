"""The discrete twin: residual blocks after the same layers, each with weights of its own."""

import pytest
import torch

from nodestill.errors import InputError
from nodestill.models import Activation, ConvDynamics, Norm, Stem, discrete_twin


def blocks(channels, count, zero_last):
    return [
        ConvDynamics(channels, layers=2, norm=Norm.NONE, activation=Activation.RELU, t1=1.0, zero_last=zero_last)
        for _ in range(count)
    ]


def test_blocks_add_to_the_state_one_after_another():
    twin = discrete_twin(Stem.FLAT, [blocks(4, 2, zero_last=False), blocks(6, 1, zero_last=False)], num_classes=3).eval()
    images, none = torch.rand(2, 3, 8, 8), torch.zeros(1, 1, 1, 1)
    (one, two), (three,) = twin.blocks
    y = twin.encoders[0](images)
    y = y + one(none, y)
    y = twin.encoders[1](y + two(none, y))
    torch.testing.assert_close(twin(images), twin.head(y + three(none, y)))


def test_the_state_is_float32_under_autocast_as_that_of_a_solve():
    twin, met = discrete_twin(Stem.FLAT, [blocks(4, 2, zero_last=False)], num_classes=3), []
    twin.head.register_forward_pre_hook(lambda _, inputs: met.append(inputs[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        twin(torch.rand(2, 3, 8, 8))
    assert met == [torch.float32]


def test_every_block_is_trained_and_time_is_not():
    twin = discrete_twin(Stem.FLAT, [blocks(4, 3, zero_last=True)], num_classes=3)
    twin(torch.rand(5, 3, 8, 8)).square().sum().backward()
    for block in twin.blocks[0]:
        assert block.convs[-1].weight.grad.abs().sum() > 0
        assert not block.time_kernels.requires_grad
    assert all(p.grad is not None for p in twin.parameters() if p.requires_grad)


@pytest.mark.parametrize("some", [[], [[]]])
def test_an_equation_without_a_block_is_refused(some):
    with pytest.raises(InputError, match="at least one block"):
        discrete_twin(Stem.FLAT, some, num_classes=3)
