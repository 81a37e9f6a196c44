"""The time map against the convolution over the concatenated channel, which it replaces."""

import pytest
import torch
import torch.nn.functional as F

from nodestill.errors import InputError
from nodestill.models.time_map import add_time_, time_maps


def joined(z_input, share, weight, kernel, bias):
    """The plain way: time as one more channel of the input."""
    time = share.expand(-1, 1, *z_input.shape[2:])
    return F.conv2d(torch.cat([z_input, time], 1), torch.cat([weight, kernel.unsqueeze(1)], 1), bias, padding=1)


@pytest.fixture
def parts(generator):
    shapes = {"y": (3, 4, 5, 6), "share": (3, 1, 1, 1), "weight": (4, 4, 3, 3), "kernel": (4, 3, 3), "bias": (4,)}
    return [torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes.values()]


@pytest.mark.parametrize("relu", [False, True])
def test_equals_the_concatenating_convolution_in_value_and_gradient(parts, relu, generator):
    y, share, weight, kernel, bias = parts
    expected = joined(y, share, weight, kernel, bias)
    expected = F.relu(expected) if relu else expected
    time_map = time_maps(kernel.unsqueeze(0), 5, 6)[0]
    got = add_time_(F.conv2d(y, weight, bias, padding=1), share, time_map, relu=relu)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    direction = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    for ours, theirs in zip(
        torch.autograd.grad(got, parts, direction), torch.autograd.grad(expected, parts, direction), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_gradcheck(generator):
    z, share, time_map = (
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in ((2, 3, 2, 2), (2, 1, 1, 1), (1, 3, 2, 2))
    )
    assert torch.autograd.gradcheck(lambda z, s, m: add_time_(z.clone(), s, m, relu=False), (z, share, time_map))


def test_a_second_derivative_is_refused(generator):
    z, share, time_map = (
        torch.randn(shape, generator=generator).requires_grad_() for shape in ((2, 3, 2, 2), (2, 1, 1, 1), (1, 3, 2, 2))
    )
    loss = add_time_(z.clone(), share, time_map, relu=True).sum()
    with pytest.raises(InputError, match="second derivative"):
        torch.autograd.grad(loss, z, create_graph=True)
    assert torch.autograd.grad(loss, z)[0].unique().tolist() == [0.0, 1.0]


def test_maps_are_the_answer_to_ones(generator):
    kernels = torch.randn((2, 3, 3, 3), generator=generator, dtype=torch.float64)
    for kernel, time_map in zip(kernels, time_maps(kernels, 4, 7), strict=True):
        ones = torch.ones(1, 1, 4, 7, dtype=torch.float64)
        torch.testing.assert_close(time_map, F.conv2d(ones, kernel.unsqueeze(1), padding=1))


def test_maps_keep_their_precision_under_autocast(generator):
    kernels = torch.randn((1, 3, 3, 3), generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = time_maps(kernels, 4, 4)[0]
    assert torch.equal(under_autocast, time_maps(kernels, 4, 4)[0])
