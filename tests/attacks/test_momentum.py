"""The shared trunk of MI-FGSM: separate runs bit for bit, for a quarter of the gradients."""

import pytest
import torch

from attacks import oracles
from nodestill.attacks import mi_fgsm, mi_fgsm_curve, paper_budget
from nodestill.attacks.momentum import l1_normalized
from nodestill.errors import InputError

LABELS = torch.tensor([0, 1, 2, 1])
RADII = range(1, 21)


def image_kinds():
    generator = torch.Generator().manual_seed(4)
    anywhere = torch.rand((4, 3, 8, 8), generator=generator)
    near_the_faces = (torch.rand((4, 3, 8, 8), generator=generator) - 0.5) / 20 % 1
    tiny = torch.rand((4, 3, 8, 8), generator=generator) * 1e-6
    return {"bytes": oracles.bytes_images(4), "anywhere": anywhere, "near the faces": near_the_faces, "tiny": tiny}


class Counted:
    """A model that counts how often it was asked for a gradient."""

    def __init__(self, net):
        self.net, self.calls = net, 0

    def __call__(self, images):
        self.calls += images.requires_grad
        return self.net(images)


@pytest.mark.parametrize("kind", image_kinds())
@pytest.mark.parametrize("momentum", [0.0, 0.7, 1.0])
def test_curve_equals_separate_runs_bit_for_bit(kind, momentum):
    net, images = oracles.small_net(), image_kinds()[kind]
    curve = dict(mi_fgsm_curve(net, images, LABELS, [0, *RADII], momentum=momentum))
    assert list(curve) == [0, *RADII]
    for eps, shared in curve.items():
        separate = mi_fgsm(net, images, LABELS, paper_budget(eps), momentum=momentum)
        assert torch.equal(shared.images, separate.images)
        assert torch.equal(shared.bad_gradients, separate.bad_gradients)
        assert torch.equal(shared.predictions, separate.predictions)


def test_64_gradients_instead_of_254():
    images, shared, separate = oracles.bytes_images(4), Counted(oracles.small_net()), Counted(oracles.small_net())
    charged = sum(result.gradient_calls for _, result in mi_fgsm_curve(shared, images, LABELS, RADII))
    for eps in RADII:
        mi_fgsm(separate, images, LABELS, paper_budget(eps))
    assert (shared.calls, charged, separate.calls) == (64, 64, 254)


def test_some_radii_in_any_order():
    net, images = oracles.small_net(), oracles.bytes_images(4)
    curve = list(mi_fgsm_curve(net, images, LABELS, [8, 2, 8]))
    assert [eps for eps, _ in curve] == [2, 8]
    assert torch.equal(curve[1][1].images, mi_fgsm(net, images, LABELS, paper_budget(8)).images)


def test_bytes_stay_bytes():
    for _, result in mi_fgsm_curve(oracles.small_net(), oracles.bytes_images(4), LABELS, RADII):
        assert torch.equal(result.images, (result.images * 255).round() / 255)


def test_mistakes_are_refused_before_the_first_result():
    net, images = oracles.small_net(), oracles.bytes_images(4)
    with pytest.raises(InputError, match="momentum"):
        mi_fgsm_curve(net, images, LABELS, [1], momentum=-0.1)
    with pytest.raises(InputError, match="eps_255"):
        mi_fgsm_curve(net, images, LABELS, [-1])


def test_norm_is_per_image_and_survives_every_scale():
    slopes = torch.randn(5, 3, 4, 4) * torch.tensor([1e-44, 1e-20, 1.0, 1e37, 0.0]).view(5, 1, 1, 1)
    norms = l1_normalized(slopes).abs().sum((1, 2, 3))
    torch.testing.assert_close(norms, torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0]))
    torch.testing.assert_close(l1_normalized(slopes)[2], slopes[2] / slopes[2].abs().sum())
