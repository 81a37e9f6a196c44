"""Losses of attacks against their formulas, one image at a time in the floats of Python."""

import math

import pytest
import torch

from nodestill.attacks.losses import cross_entropy, dlr, dlr_towards, likely_targets, margin
from nodestill.errors import InputError

CLASSES = 6


def naive_cross_entropy(z, y, t):
    return math.log(sum(math.exp(other - z[y]) for other in z))


def naive_margin(z, y, t):
    return max(other for i, other in enumerate(z) if i != y) - z[y]


def naive_dlr(z, y, t):
    first, _, third, *_ = sorted(z, reverse=True)
    return -(z[y] - max(other for i, other in enumerate(z) if i != y)) / (first - third)


def naive_dlr_towards(z, y, t):
    first, _, third, fourth, *_ = sorted(z, reverse=True)
    return -(z[y] - z[t]) / (first - (third + fourth) / 2)


@pytest.fixture
def case(generator):
    """Logits with a spread of sizes; every class is a label, and the label is the largest logit in places."""
    logits = torch.randn((60, CLASSES), generator=generator, dtype=torch.float64) * torch.logspace(-2, 1, 60)[:, None]
    labels = torch.where(torch.arange(60) % 2 == 0, logits.argmax(1), torch.arange(60) % CLASSES)
    targets = (labels + 1 + torch.arange(60) % (CLASSES - 1)) % CLASSES
    return logits, labels, targets


LOSSES = {
    "cross_entropy": (lambda targets: cross_entropy, naive_cross_entropy),
    "margin": (lambda targets: margin, naive_margin),
    "dlr": (lambda targets: dlr, naive_dlr),
    "dlr_towards": (dlr_towards, naive_dlr_towards),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_equal_their_formulas(case, name):
    logits, labels, targets = case
    loss, naive = LOSSES[name]
    expected = [naive(*row) for row in zip(logits.tolist(), labels.tolist(), targets.tolist())]
    actual = loss(targets)(logits, labels)
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_the_values(case, name):
    logits, labels, targets = case
    loss = LOSSES[name][0](targets)
    assert torch.autograd.gradcheck(lambda z: loss(z, labels), logits.requires_grad_(True))


def test_margin_is_positive_exactly_where_the_image_is_misclassified(case):
    logits, labels, _ = case
    wrong = logits.argmax(1) != labels
    assert 0 < int(wrong.sum()) < 60
    assert torch.equal(margin(logits, labels) > 0, wrong)
    assert torch.equal(dlr(logits, labels) > 0, wrong)


@pytest.mark.parametrize("name", ["dlr", "dlr_towards"])
def test_the_ratio_of_logits_has_no_scale(case, name):
    logits, labels, targets = case
    loss = LOSSES[name][0](targets)
    torch.testing.assert_close(loss(1e4 * logits + 7, labels), loss(logits, labels), atol=1e-6, rtol=1e-6)


def test_logits_that_are_all_alike_give_zero_and_no_nan():
    alike, labels = torch.full((1, 5), 2.0), torch.tensor([3])
    assert float(dlr(alike, labels)) == 0
    assert float(dlr_towards(labels - 1)(alike, labels)) == 0


def test_cross_entropy_of_half_precision_is_computed_in_float32():
    logits = torch.tensor([[8.0, 0.0, 0.0]], dtype=torch.bfloat16)
    loss = cross_entropy(logits, torch.tensor([0]))
    assert loss.dtype is torch.float32
    assert float(loss) == pytest.approx(math.log1p(2 * math.exp(-8)), rel=1e-3)  # bfloat16 holds no 1 + 2 exp(-8)


def test_likely_targets_are_the_other_classes_in_order():
    logits = torch.tensor([[1.0, 4.0, 3.0, 2.0], [9.0, 7.0, 8.0, 6.0]])
    labels = torch.tensor([2, 0])
    assert likely_targets(logits, labels, 2).tolist() == [[1, 2], [3, 1]]
    assert likely_targets(logits, labels, 9).t().tolist() == [[1, 3, 0], [2, 1, 3]]


def test_a_target_without_a_logit_comes_last():
    logits = torch.tensor([[1.0, float("nan"), 3.0, 2.0]])
    assert likely_targets(logits, torch.tensor([0]), 2).t().tolist() == [[2, 3]]


@pytest.mark.parametrize(("name", "needed"), [("dlr", 3), ("dlr_towards", 4)])
def test_too_few_classes_are_refused(case, name, needed):
    logits, labels, targets = case
    loss = LOSSES[name][0](targets % 2)
    loss(logits[:, :needed], labels % 2)
    with pytest.raises(InputError, match=f"at least {needed} classes"):
        loss(logits[:, : needed - 1], labels % 2)
