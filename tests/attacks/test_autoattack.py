"""AutoAttack as a cross-check, on a linear model of five classes, whose smallest fooling radii are known."""

import sys

import pytest
import torch
from torch import nn

from nodestill.attacks import AttackName, Hunt, LinfBudget, Subject, hunt_down, start
from nodestill.attacks.autoattack import autoattack
from nodestill.data import ImageSet
from nodestill.errors import InputError

pytestmark = pytest.mark.parity
CLASSES, SIZE = 5, 4


class Linear(nn.Module):
    """Logits linear in the pixels; grey pictures stay far from black and white."""

    def __init__(self, classes=CLASSES):
        super().__init__()
        self.weights = torch.randn(3 * SIZE * SIZE, classes, generator=torch.Generator().manual_seed(2))

    def forward(self, pictures):
        return (pictures - 0.5).flatten(1) @ self.weights.to(pictures)


def data(count=16):
    pixels = torch.randint(110, 146, (count, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    labels = Linear()(pixels.float() / 255).argmax(1)
    return ImageSet("grey", "made up", pixels, labels, tuple("abcde"))


def smallest_radii(images):
    """In 1/255: the margin to each other class over the L1 norm of the difference of weights, and the least of them."""
    model = Linear()
    logits, weights = model(images.images.double() / 255), model.weights.double()
    own = logits.gather(1, images.labels[:, None])
    norms = (weights[:, images.labels].T[:, :, None] - weights[None]).abs().sum(1)
    return 255 * torch.where(norms > 0, (own - logits) / norms, torch.inf).min(1).values


def subject():
    return Subject(Linear(), batch_independent=True)


def test_it_fools_whom_it_can_and_nobody_else():
    images = data()
    radii = smallest_radii(images)
    eps = round(float(radii.median()))
    assert eps >= 1
    assert 0 < int((radii < eps).sum()) < len(radii)
    clean = images.images.float() / 255
    before = torch.get_rng_state()
    result = autoattack(Linear(), clean, images.labels, LinfBudget(eps))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(result.fooled, radii < eps)
    assert float((result.images - clean).abs().max()) <= eps / 255 + 1e-6
    assert result.gradient_calls > 0


def test_after_our_attacks_it_meets_only_whom_they_left():
    images = data()
    eps = round(float(smallest_radii(images).median()))
    hunt = Hunt(subject(), images, len(images))
    attacks = [AttackName.PGD, AttackName.APGD_DLR, AttackName.AUTOATTACK]
    first, second, last = hunt_down(hunt, attacks, [eps], state=start(hunt))
    assert last.attack == "autoattack"
    assert last.attacked == len(images) - len(first.fooled) - len(second.fooled)
    assert last.attacked > 0
    assert last.fooled == ()  # ours missed nobody


def test_what_one_of_ours_missed_is_found():
    """PGD on the cross-entropy follows no single class: it misses an image whose way out is narrow."""
    images = data()
    radii = smallest_radii(images)
    eps = round(float(radii.median()))
    hunt = Hunt(subject(), images, len(images))
    first, last = hunt_down(hunt, [AttackName.PGD, AttackName.AUTOATTACK], [eps], state=start(hunt))
    assert last.fooled
    assert torch.equal(torch.tensor(sorted(first.fooled + last.fooled)), torch.nonzero(radii < eps)[:, 0])


def test_too_few_classes_are_a_mistake():
    with pytest.raises(InputError, match="at least 4 classes, got 3"):
        autoattack(Linear(3), torch.full((2, 3, SIZE, SIZE), 0.5), torch.tensor([0, 1]), LinfBudget(4))


def test_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    with pytest.raises(InputError, match=r"nodestill\[attacks\]"):
        autoattack(Linear(), torch.full((2, 3, SIZE, SIZE), 0.5), torch.tensor([0, 1]), LinfBudget(4))
