"""The distillation loss against the formula written out in plain Python, and what an objective hands to its models."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nodestill.data import Batch
from nodestill.errors import InputError
from nodestill.training import distillation_loss, distilled, supervised


def logits(seed: int, batch: int = 5, classes: int = 4) -> Tensor:
    return 3 * torch.randn(batch, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


LABELS = torch.tensor([0, 3, 1, 1, 2])


def softmax(row: list[float], temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def naive_parts(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> tuple[float, float]:
    """Cross-entropy and KL(teacher || student), image by image, class by class."""
    cross_entropy = kl = 0.0
    for s, t, label in zip(student.tolist(), teacher.tolist(), labels.tolist()):
        cross_entropy -= math.log(softmax(s, 1.0)[label]) / len(labels)
        for p, q in zip(softmax(t, temperature), softmax(s, temperature)):
            kl += p * math.log(p / q) / len(labels)
    return cross_entropy, kl


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0, 20.0])
@pytest.mark.parametrize("kd_weight", [0.0, 0.3, 0.9, 1.0])
def test_the_loss_is_the_formula(temperature, kd_weight):
    loss = distillation_loss(logits(1), logits(2), LABELS, temperature=temperature, kd_weight=kd_weight)
    cross_entropy, kl = naive_parts(logits(1), logits(2), LABELS, temperature)
    assert loss.total.item() == pytest.approx((1 - kd_weight) * cross_entropy + kd_weight * temperature**2 * kl, rel=1e-12)
    assert {name: part.item() for name, part in loss.parts.items()} == pytest.approx({"cross_entropy": cross_entropy, "kl": kl})


def test_the_divergence_is_the_teachers_from_the_student():
    one_way, other_way = (naive_parts(a, b, LABELS, 3.0)[1] for a, b in ((logits(1), logits(2)), (logits(2), logits(1))))
    assert abs(one_way - other_way) > 0.01  # else this test could not tell
    found = distillation_loss(logits(1), logits(2), LABELS, temperature=3.0, kd_weight=1.0).parts["kl"]
    assert found.item() == pytest.approx(one_way)


def test_weight_zero_is_cross_entropy_to_the_bit():
    loss = distillation_loss(logits(1), logits(2), LABELS, temperature=10.0, kd_weight=0.0)
    assert torch.equal(loss.total, F.cross_entropy(logits(1), LABELS))


def test_a_student_that_equals_its_teacher_has_nothing_to_learn_from_it():
    same = logits(1).requires_grad_()
    loss = distillation_loss(same, logits(1), LABELS, temperature=4.0, kd_weight=1.0)
    loss.total.backward()
    assert loss.parts["kl"].item() == pytest.approx(0, abs=1e-15)
    assert same.grad.abs().max() < 1e-14


def test_at_high_temperature_the_gradient_is_the_centred_difference_of_logits():
    student, teacher = logits(1).requires_grad_(), logits(2)
    distillation_loss(student, teacher, LABELS, temperature=1e5, kd_weight=1.0).total.backward()
    difference = student.detach() - teacher
    expected = (difference - difference.mean(1, keepdim=True)) / 4 / 5  # classes, batch
    torch.testing.assert_close(student.grad, expected, rtol=0, atol=1e-4)
    assert expected.abs().max() > 0.1


def test_the_gradient_does_not_shrink_with_the_temperature():
    sizes = []
    for temperature in (10.0, 100.0):
        student = logits(1).requires_grad_()
        distillation_loss(student, logits(2), LABELS, temperature=temperature, kd_weight=1.0).total.backward()
        sizes.append(float(student.grad.norm()))
    assert sizes[1] == pytest.approx(sizes[0], rel=0.2)


@pytest.mark.parametrize("kd_weight", [0.0, 0.4, 1.0])
def test_gradcheck(kd_weight):
    def total(student: Tensor, teacher: Tensor) -> Tensor:
        return distillation_loss(student, teacher, LABELS, temperature=2.5, kd_weight=kd_weight).total

    assert torch.autograd.gradcheck(total, (logits(1).requires_grad_(), logits(2).requires_grad_()))


def test_parts_are_detached():
    loss = distillation_loss(logits(1).requires_grad_(), logits(2), LABELS, temperature=1.0, kd_weight=0.5)
    assert loss.total.requires_grad
    assert not any(part.requires_grad for part in loss.parts.values())


@pytest.mark.parametrize(
    ("temperature", "kd_weight", "said"),
    [
        (3.0, 9.0, r"kd_weight must lie in \[0, 1\], got 9.0"),
        (3.0, -0.1, "kd_weight"),
        (3.0, float("nan"), "kd_weight"),
        (0.0, 0.5, "temperature must be positive and finite, got 0.0"),
        (float("nan"), 0.5, "temperature"),
        (float("inf"), 0.5, "temperature"),
    ],
)
def test_what_is_out_of_range_is_refused(temperature, kd_weight, said):
    with pytest.raises(InputError, match=said):
        distillation_loss(logits(1), logits(2), LABELS, temperature=temperature, kd_weight=kd_weight)


def batch(count: int = 6) -> Batch:
    index = torch.arange(count)
    return Batch(torch.rand(count, 3, 4, 4), index % 3, index, torch.zeros_like(index))


class Spy(nn.Module):
    """A classifier that remembers what it was shown and how."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(48, 3)
        self.seen: list[tuple[Tensor, bool, bool]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append((images, self.training, torch.is_grad_enabled()))
        return self.layer(images.flatten(1))


def test_the_teacher_is_frozen_in_evaluation_mode_and_sees_the_students_view():
    student, teacher, shown = Spy(), Spy(), batch()
    objective = distilled(student, teacher, temperature=2.0, kd_weight=0.7)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    teacher.requires_grad_(True)  # not even then does it get a gradient
    loss = objective(shown)
    loss.total.backward()
    (images, training, grad), (same, _, _) = teacher.seen[0], student.seen[0]
    assert images is same is shown.images
    assert (training, grad) == (False, False)
    assert teacher.layer.weight.grad is None
    assert student.layer.weight.grad is not None


def test_the_distilled_objective_is_the_loss_and_counts_hits_and_agreement():
    student, teacher, shown = Spy(), Spy(), batch()
    loss = distilled(student, teacher, temperature=2.0, kd_weight=0.7)(shown)
    with torch.no_grad():
        s, t = student(shown.images), teacher(shown.images)
    assert torch.equal(loss.total, distillation_loss(s, t, shown.labels, temperature=2.0, kd_weight=0.7).total)
    hits = sum(int(row.argmax()) == int(label) for row, label in zip(s, shown.labels)) / 6
    same = sum(int(a.argmax()) == int(b.argmax()) for a, b in zip(s, t)) / 6
    assert loss.parts["accuracy"].item() == pytest.approx(hits)
    assert loss.parts["agreement"].item() == pytest.approx(same)


def test_the_supervised_objective_is_cross_entropy_with_smoothed_labels():
    model, shown = Spy(), batch()
    plain, smooth = supervised(model)(shown), supervised(model, label_smoothing=0.3)(shown)
    logs = model(shown.images).log_softmax(1)
    target = F.one_hot(shown.labels, 3) * 0.7 + 0.1
    torch.testing.assert_close(plain.total, -logs[range(6), shown.labels].mean())
    torch.testing.assert_close(smooth.total, -(target * logs).sum(1).mean())


def test_labels_are_smoothed_in_the_distilled_objective_and_targets_are_not():
    loss = distillation_loss(logits(1), logits(2), LABELS, temperature=3.0, kd_weight=0.5, label_smoothing=0.2)
    plain = distillation_loss(logits(1), logits(2), LABELS, temperature=3.0, kd_weight=0.5)
    smoothed = F.cross_entropy(logits(1), 0.8 * F.one_hot(LABELS, 4).double() + 0.05)
    torch.testing.assert_close(loss.parts["cross_entropy"], smoothed)
    assert torch.equal(loss.parts["kl"], plain.parts["kl"])
    torch.testing.assert_close(loss.total - plain.total, 0.5 * (smoothed - plain.parts["cross_entropy"]))
