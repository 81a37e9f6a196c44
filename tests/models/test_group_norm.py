"""The written-out group normalisation against PyTorch's."""

import pytest
import torch
import torch.nn.functional as F

from nodestill.errors import InputError
from nodestill.models.fused_group_norm import How, fused_group_norm
from nodestill.models.group_norm import group_norm_at_time, norm_groups


def make(generator, dtype, shape=(3, 8, 4, 5)):
    batch, channels, height, width = shape
    shapes = [shape, (batch, 1, 1, 1), (1, channels, height, width), (channels,), (channels,)]
    return [(1 + torch.randn(s, generator=generator, dtype=torch.float64)).to(dtype).requires_grad_() for s in shapes]


def reference(z, share, time_map, weight, bias, *, groups, relu):
    y = F.group_norm(z + share * time_map, groups, weight, bias)
    return F.relu(y) if relu else y


def fused(z, *parts, groups, relu=False):
    """What a compiler sees, here uncompiled."""
    return fused_group_norm(z, *parts, How(groups, 1e-5, relu, z.dtype))


@pytest.mark.parametrize("groups", [1, 4, 8])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("norm", [group_norm_at_time, fused])
def test_equals_group_norm_in_value_and_gradient(generator, groups, relu, memory_format, norm):
    inputs = make(generator, torch.float64)
    laid_out = [inputs[0].contiguous(memory_format=memory_format), *inputs[1:]]
    got = norm(*laid_out, groups=groups, relu=relu)
    expected = reference(*inputs, groups=groups, relu=relu)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    direction = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    for ours, theirs in zip(
        torch.autograd.grad(got, inputs, direction), torch.autograd.grad(expected, inputs, direction), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_gradcheck(generator):
    inputs = make(generator, torch.float64, (2, 4, 2, 3))
    assert torch.autograd.gradcheck(lambda *parts: group_norm_at_time(*parts, groups=2), inputs)


def test_a_second_derivative_is_refused(generator):
    inputs = make(generator, torch.float64, (2, 4, 2, 3))
    loss = group_norm_at_time(*inputs, groups=2, relu=True).sum()
    with pytest.raises(InputError, match="second derivative"):
        torch.autograd.grad(loss, inputs[0], create_graph=True)
    assert torch.autograd.grad(loss, inputs[0])[0].abs().max() > 0


@pytest.mark.parametrize("norm", [group_norm_at_time, fused])
def test_bfloat16_is_within_its_rounding_of_the_exact_result(generator, norm):
    wide = [part.detach() for part in make(generator, torch.float32)]
    z = wide[0].bfloat16()
    got = norm(z, *wide[1:], groups=4)
    expected = reference(z.double(), *(part.double() for part in wide[1:]), groups=4, relu=False)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.double(), expected, rtol=2**-8, atol=1e-5)


@pytest.mark.parametrize("norm", [group_norm_at_time, fused])
def test_variance_survives_a_large_mean(generator, norm):
    z = 1e3 + torch.randn((2, 4, 8, 8), generator=generator)
    nothing = torch.zeros(2, 1, 1, 1), torch.zeros(1, 4, 8, 8), torch.ones(4), torch.zeros(4)
    got = norm(z, *nothing, groups=2)
    torch.testing.assert_close(got.double(), F.group_norm(z.double(), 2), rtol=0, atol=5e-4)


def test_image_by_itself(generator):
    inputs = [part.detach() for part in make(generator, torch.float32)]
    whole = group_norm_at_time(*inputs, groups=4)
    alone = group_norm_at_time(inputs[0][1:2], inputs[1][1:2], *inputs[2:], groups=4)
    torch.testing.assert_close(alone, whole[1:2])


def test_groups():
    assert [norm_groups(channels) for channels in (1, 8, 24, 32, 40, 64, 512)] == [1, 1, 1, 2, 2, 4, 32]
    with pytest.raises(InputError, match="at least 1"):
        norm_groups(0)


def test_a_norm_leaves_the_pooled_head_something_to_see(generator):
    """With one channel per group every channel's mean over the pixels would be the same constant for all images."""
    images = torch.randn(4, 16, 8, 8, generator=generator) + torch.randn(4, 16, 1, 1, generator=generator)
    pooled = F.group_norm(images, norm_groups(16)).mean((2, 3))
    assert pooled.std(0).min() > 0.1
