"""Other ways to follow a teacher, against the formulas written out; and the mistakes that are controls."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nodestill.data import Batch
from nodestill.errors import InputError
from nodestill.training import distillation_loss, live, supervised, taught
from nodestill.training.matching import logit_loss, mean_loss

LABELS = torch.tensor([0, 3, 1, 1, 2])
LOSSES = (distillation_loss, logit_loss, mean_loss)


def logits(seed: int) -> Tensor:
    return 3 * torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def cross_entropy(said: Tensor) -> float:
    """Image by image: the negative logarithm of what a softmax gives the label."""
    rows = [[math.exp(value) for value in row] for row in said.tolist()]
    return -sum(math.log(row[label] / sum(row)) for row, label in zip(rows, LABELS.tolist())) / len(rows)


@pytest.mark.parametrize("kd_weight", [0.0, 0.3, 1.0])
def test_logits_are_followed_by_half_their_mean_square(kd_weight):
    s, t = logits(1), logits(2)
    squares = sum((a - b) ** 2 for a, b in zip(s.flatten().tolist(), t.flatten().tolist())) / (2 * s.numel())
    found = logit_loss(s, t, LABELS, temperature=3.0, kd_weight=kd_weight)
    assert found.total.item() == pytest.approx((1 - kd_weight) * cross_entropy(s) + kd_weight * squares, rel=1e-12)
    assert found.parts["kl"].item() == pytest.approx(squares)


def test_it_is_what_distillation_becomes_at_a_high_temperature():
    s, t = (value - value.mean(1, keepdim=True) for value in (logits(1), logits(2)))
    hot = distillation_loss(s, t, LABELS, temperature=1e5, kd_weight=1.0).total
    limit = logit_loss(s, t, LABELS, temperature=3.0, kd_weight=1.0).total
    assert hot.item() == pytest.approx(limit.item(), rel=1e-4)


@pytest.mark.parametrize("kd_weight", [0.0, 0.9, 1.0])
def test_the_kl_averaged_over_classes_weighs_a_classth(kd_weight):
    right, wrong = (
        f(logits(1), logits(2), LABELS, temperature=3.0, kd_weight=kd_weight) for f in (distillation_loss, mean_loss)
    )
    assert wrong.parts["kl"].item() == pytest.approx(right.parts["kl"].item() / 4, rel=1e-12)
    expected = (1 - kd_weight) * cross_entropy(logits(1)) + kd_weight * 9 * right.parts["kl"].item() / 4
    assert wrong.total.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_double_softmax_takes_probabilities_for_logits(loss):
    found = loss(logits(1), logits(2), LABELS, temperature=3.0, kd_weight=0.5, double_softmax=True)
    assert found.parts["cross_entropy"].item() == pytest.approx(cross_entropy(logits(1).softmax(1)))
    once = loss(logits(1), logits(2), LABELS, temperature=3.0, kd_weight=0.5)
    assert found.parts["kl"] == once.parts["kl"]


def test_a_double_softmax_of_labels_alone_cannot_fall_below_its_floor():
    """Probabilities lie in [0, 1], so even a certain and right student keeps this loss: log(e + classes − 1) − 1."""
    sure = 1000 * F.one_hot(LABELS, 4).float()
    batch = Batch(torch.rand(5, 3, 2, 2), LABELS, torch.arange(5), torch.zeros(5, dtype=torch.int64))
    found = supervised(lambda images: sure, double_softmax=True)(batch)
    assert found.total.item() == pytest.approx(math.log(math.e + 3) - 1, rel=1e-6)
    assert found.parts["accuracy"] == 1


@pytest.mark.parametrize("loss", LOSSES)
def test_an_objective_takes_any_of_them(loss):
    class Fixed(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return logits(2).float()

    batch = Batch(torch.rand(5, 3, 2, 2), LABELS, torch.arange(5), torch.zeros(5, dtype=torch.int64))
    settings = {"temperature": 3.0, "kd_weight": 0.9, "label_smoothing": 0.1, "double_softmax": True}
    found = taught(lambda images: logits(1).float(), live(Fixed()), loss=loss, **settings)(batch)
    expected = loss(logits(1).float(), logits(2).float(), LABELS, **settings)
    assert found.total == expected.total
    assert set(found.parts) == {"cross_entropy", "kl", "accuracy", "agreement"}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("temperature", "kd_weight"), [(0.0, 0.9), (3.0, 9.0)])
def test_what_is_out_of_range_is_refused(loss, temperature, kd_weight):
    with pytest.raises(InputError, match="must"):
        loss(logits(1), logits(2), LABELS, temperature=temperature, kd_weight=kd_weight)
