"""The whitening layer: what its outputs are like, and that it is never trained."""

import pytest
import torch

from nodestill.errors import InputError
from nodestill.models import Whitening


def smooth_images(generator):
    """Images whose neighbouring pixels are much alike, and whose colours are."""
    noise = torch.randn((40, 1, 9, 9), generator=generator) + 0.3 * torch.randn((40, 3, 9, 9), generator=generator)
    return torch.nn.functional.avg_pool2d(noise, 2, stride=1)


def test_outputs_are_uncorrelated_and_come_with_their_negatives(generator):
    images, layer = smooth_images(generator), Whitening()
    layer.learn(images)
    with torch.no_grad():
        found = layer(images).permute(0, 2, 3, 1).flatten(0, 2).double()
    torch.testing.assert_close(found[:, 12:], -found[:, :12])
    moments = found[:, :12].T @ found[:, :12] / len(found)
    off_diagonal = moments - moments.diag().diag()
    assert float(off_diagonal.abs().max()) < 1e-3
    assert float(moments.diag().max()) < 1 + 1e-4  # a little less than one: variances have a floor
    assert float(moments.diag()[-3:].min()) > 0.98
    raw = images.unfold(2, 2, 1).unfold(3, 2, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, 12)
    assert float(torch.corrcoef(raw.T)[0, 1]) > 0.3  # and were not so before


def test_it_is_not_trained_and_answers_nothing_before_it_has_learned():
    layer = Whitening()
    assert not any(parameter.requires_grad for parameter in layer.parameters())
    assert not layer(torch.rand(1, 3, 4, 4)).any()


def test_it_wants_whole_patches():
    with pytest.raises(InputError, match="at least 2 x 2"):
        Whitening().learn(torch.rand(2, 3, 1, 4))
