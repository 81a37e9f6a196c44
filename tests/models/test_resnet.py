"""The teachers against their published sizes."""

import pytest
import torch

from nodestill.errors import InputError
from nodestill.models import Normalize, parameter_count, resnet
from nodestill.models.resnet import BasicBlock

COUNTS = {20: 269_722, 32: 464_154, 44: 658_586, 56: 853_018, 110: 1_727_962}


@pytest.mark.parametrize("depth", COUNTS)
def test_parameter_counts(depth):
    assert parameter_count(resnet(depth, 10)) == COUNTS[depth]


@pytest.mark.parametrize("size", [8, 32])
def test_shapes(size):
    assert resnet(8, 7, width=4)(torch.rand(2, 3, size, size)).shape == (2, 7)


def test_normalisation_is_the_first_layer(generator):
    mean, std = (0.1, 0.2, 0.3), (0.5, 1.0, 2.0)
    images = torch.rand((2, 3, 8, 8), generator=generator)
    normalised = resnet(8, 10, width=4, mean=mean, std=std).eval()
    raw = resnet(8, 10, width=4).eval()
    raw.load_state_dict(
        {**normalised.state_dict(), "normalize.mean": torch.zeros(1, 3, 1, 1), "normalize.std": torch.ones(1, 3, 1, 1)}
    )
    by_hand = torch.stack([(images[:, c] - mean[c]) / std[c] for c in range(3)], 1)
    torch.testing.assert_close(normalised(images), raw(by_hand))
    assert isinstance(next(iter(normalised.children())), Normalize)


def test_shortcut_takes_every_second_pixel_and_pads_with_zeros(generator):
    block = BasicBlock(2, 4, 2)
    torch.nn.init.zeros_(block.norm2.weight)
    x = torch.rand((1, 2, 4, 4), generator=generator)
    y = block(x)
    torch.testing.assert_close(y[:, 1:3], x[:, :, ::2, ::2])
    assert y[:, [0, 3]].abs().max() == 0


def test_an_image_alone_is_as_in_a_batch(generator):
    model = resnet(8, 10).eval()
    images = torch.rand((5, 3, 8, 8), generator=generator)
    torch.testing.assert_close(model(images[2:3]), model(images)[2:3], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("depth", [2, 18, 21])
def test_bad_depth(depth):
    with pytest.raises(InputError, match="6n"):
        resnet(depth, 10)


def test_bad_width():
    with pytest.raises(InputError, match="width"):
        resnet(8, 10, width=5)


@pytest.mark.parametrize(("mean", "std"), [((0.0,) * 3, (1.0, 0.0, 1.0)), ((0.0,) * 2, (1.0,) * 3)])
def test_bad_normalisation(mean, std):
    with pytest.raises(InputError, match="std"):
        Normalize(mean, std)
