"""The robust losses against their formulas in plain Python, what is asked of an attack, and what an attack is worth."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nodestill.data import Batch
from nodestill.errors import InputError
from nodestill.training.lessons import live
from nodestill.training.robust_objectives import adversarially_supervised, ard, ard_loss, divergence, rslad, rslad_loss


def logits(seed: int, batch: int = 5, classes: int = 4) -> Tensor:
    return 3 * torch.randn(batch, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


CLEAN, ADVERSARIAL, TEACHER = logits(1), logits(2), logits(3)
LABELS = torch.tensor([0, 3, 1, 1, 2])


def softmax(row: list[float], temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def naive_kl(student: Tensor, teacher: Tensor, temperature: float) -> list[float]:
    """KL(teacher || student) of each image, class by class."""
    found = []
    for s, t in zip(student.tolist(), teacher.tolist()):
        found.append(sum(p * math.log(p / q) for p, q in zip(softmax(t, temperature), softmax(s, temperature))))
    return found


def naive_cross_entropy(student: Tensor, labels: Tensor) -> list[float]:
    return [-math.log(softmax(row, 1.0)[label]) for row, label in zip(student.tolist(), labels.tolist())]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


SETTINGS = pytest.mark.parametrize(
    ("temperature", "kd_weight"), [(1.0, 5 / 6), (1.0, 1.0), (0.5, 0.0), (30.0, 1.0), (3.0, 0.3)]
)


@SETTINGS
def test_ard_is_its_formula(temperature, kd_weight):
    loss = ard_loss(CLEAN, ADVERSARIAL, TEACHER, LABELS, temperature=temperature, kd_weight=kd_weight)
    kl, entropy = mean(naive_kl(ADVERSARIAL, TEACHER, temperature)), mean(naive_cross_entropy(CLEAN, LABELS))
    assert loss.total.item() == pytest.approx(kd_weight * temperature**2 * kl + (1 - kd_weight) * entropy, rel=1e-12)
    found = {name: part.item() for name, part in loss.parts.items()}
    assert found == pytest.approx({"cross_entropy": entropy, "kl_adversarial": kl})


@SETTINGS
def test_rslad_is_its_formula(temperature, kd_weight):
    loss = rslad_loss(CLEAN, ADVERSARIAL, TEACHER, temperature=temperature, kd_weight=kd_weight)
    clean, adversarial = (mean(naive_kl(of, TEACHER, temperature)) for of in (CLEAN, ADVERSARIAL))
    expected = temperature**2 * ((1 - kd_weight) * clean + kd_weight * adversarial)
    assert loss.total.item() == pytest.approx(expected, rel=1e-12)
    found = {name: part.item() for name, part in loss.parts.items()}
    assert found == pytest.approx({"kl": clean, "kl_adversarial": adversarial})


def test_the_weights_of_rslads_authors_are_the_default():
    by_default = rslad_loss(CLEAN, ADVERSARIAL, TEACHER).total
    clean, adversarial = (mean(naive_kl(of, TEACHER, 1.0)) for of in (CLEAN, ADVERSARIAL))
    assert by_default.item() == pytest.approx(clean / 6 + 5 * adversarial / 6, rel=1e-12)


def test_the_divergence_is_a_sum_over_classes_for_each_image():
    assert divergence(CLEAN, TEACHER, 3.0).tolist() == pytest.approx(naive_kl(CLEAN, TEACHER, 3.0), rel=1e-12)
    assert divergence(CLEAN.bfloat16(), TEACHER.bfloat16(), 1.0).dtype == torch.float32


def test_labels_are_smoothed_in_ard_and_the_teacher_is_not():
    settings = {"temperature": 2.0, "kd_weight": 0.5}
    smooth = ard_loss(CLEAN, ADVERSARIAL, TEACHER, LABELS, **settings, label_smoothing=0.2)
    plain = ard_loss(CLEAN, ADVERSARIAL, TEACHER, LABELS, **settings)
    expected = F.cross_entropy(CLEAN, 0.8 * F.one_hot(LABELS, 4).double() + 0.05)
    torch.testing.assert_close(smooth.parts["cross_entropy"], expected)
    assert torch.equal(smooth.parts["kl_adversarial"], plain.parts["kl_adversarial"])


@SETTINGS
def test_gradcheck(temperature, kd_weight):
    def totals(clean: Tensor, adversarial: Tensor) -> tuple[Tensor, Tensor]:
        settings = {"temperature": temperature, "kd_weight": kd_weight}
        one = ard_loss(clean, adversarial, TEACHER, LABELS, **settings)
        return one.total, rslad_loss(clean, adversarial, TEACHER, **settings).total

    assert torch.autograd.gradcheck(totals, (logits(1).requires_grad_(), logits(2).requires_grad_()))


@pytest.mark.parametrize(
    ("temperature", "kd_weight", "said"),
    [
        (3.0, 9.0, r"kd_weight must lie in \[0, 1\], got 9.0\. .*RSLAD's 5/6\."),
        (3.0, -0.1, "kd_weight"),
        (3.0, float("nan"), "kd_weight"),
        (0.0, 0.5, r"temperature must be positive and finite, got 0.0\. ARD's authors have 30, RSLAD's 1\."),
        (float("nan"), 0.5, "temperature"),
        (float("inf"), 0.5, "temperature"),
    ],
)
def test_what_is_out_of_range_is_refused_before_the_first_batch(temperature, kd_weight, said):
    settings = {"temperature": temperature, "kd_weight": kd_weight}
    for make in (ard, rslad):
        with pytest.raises(InputError, match=said):
            make(Spy(), live(Spy()), unmoved, **settings)
    with pytest.raises(InputError, match=said):
        ard_loss(CLEAN, ADVERSARIAL, TEACHER, LABELS, **settings)
    with pytest.raises(InputError, match=said):
        rslad_loss(CLEAN, ADVERSARIAL, TEACHER, **settings)


# Objectives


class Spy(nn.Module):
    """A classifier of 4x4 images that remembers what it was shown."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layer = nn.Linear(48, 3)
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        return self.layer(images.flatten(1))


def batch(count: int = 6) -> Batch:
    index = torch.arange(count)
    images = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    return Batch(images, index % 3, index, torch.zeros_like(index))


def unmoved(shown: Batch, raised) -> Tensor:
    return shown.images


class Darker:
    """An attack that darkens images and remembers what it was to raise."""

    def __init__(self) -> None:
        self.raised: list = []

    def __call__(self, shown: Batch, raised) -> Tensor:
        self.raised.append(raised)
        return shown.images / 2


def made(name: str, student: nn.Module, teacher: nn.Module, perturb):
    if name == "labels":
        return adversarially_supervised(student, perturb)
    return {"ard": ard, "rslad": rslad}[name](student, live(teacher), perturb, temperature=2.0, kd_weight=0.7)


NAMES = pytest.mark.parametrize("name", ["ard", "rslad", "labels"])


@NAMES
def test_an_objective_is_its_loss_at_clean_and_at_perturbed_images(name):
    student, teacher, shown = Spy(1), Spy(2), batch()
    loss = made(name, student, teacher, Darker())(shown)
    with torch.no_grad():
        clean, adversarial, said = student(shown.images), student(shown.images / 2), teacher(shown.images)
    settings = {"temperature": 2.0, "kd_weight": 0.7}
    match name:
        case "ard":
            expected = ard_loss(clean, adversarial, said, shown.labels, **settings).total
        case "rslad":
            expected = rslad_loss(clean, adversarial, said, **settings).total
        case _:
            expected = F.cross_entropy(adversarial, shown.labels)
    torch.testing.assert_close(loss.total, expected)
    hits = sum(int(row.argmax()) == int(label) for row, label in zip(adversarial, shown.labels)) / 6
    assert loss.parts["robust_accuracy"].item() == pytest.approx(hits)
    if name != "labels":
        right = sum(int(row.argmax()) == int(label) for row, label in zip(clean, shown.labels)) / 6
        same = sum(int(a.argmax()) == int(b.argmax()) for a, b in zip(clean, said)) / 6
        assert (loss.parts["accuracy"].item(), loss.parts["agreement"].item()) == pytest.approx((right, same))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("ard", {"cross_entropy", "kl_adversarial", "accuracy", "robust_accuracy", "agreement"}),
        ("rslad", {"kl", "kl_adversarial", "accuracy", "robust_accuracy", "agreement"}),
        ("labels", {"cross_entropy_adversarial", "robust_accuracy"}),
    ],
)
def test_each_term_is_told_and_detached(name, parts):
    loss = made(name, Spy(1), Spy(2), Darker())(batch())
    assert set(loss.parts) == parts
    assert loss.total.requires_grad
    assert not any(part.requires_grad for part in loss.parts.values())


def test_an_attack_is_asked_to_raise_what_the_method_says():
    """Cross-entropy with the labels for ARD and for labels alone, the distance to the teacher for RSLAD, image by image."""
    teacher, shown, other = Spy(2), batch(5), logits(4, classes=3)
    said = teacher(shown.images)
    for name, expected in (
        ("ard", naive_cross_entropy(other, shown.labels)),
        ("labels", naive_cross_entropy(other, shown.labels)),
        ("rslad", naive_kl(other, said, 2.0)),
    ):
        attack = Darker()
        made(name, Spy(1), teacher, attack)(shown)
        (raised,) = attack.raised
        assert raised(other).tolist() == pytest.approx(expected, rel=1e-5)
        assert raised(other.bfloat16()).dtype == torch.float32


@NAMES
def test_the_gradient_reaches_the_student_and_nothing_else(name):
    student, teacher, shown = Spy(1), Spy(2), batch()
    loss = made(name, student, teacher, Darker())(shown)
    teacher.requires_grad_(True)  # not even then does it get a gradient
    loss.total.backward()
    assert student.layer.weight.grad.abs().max() > 0
    assert teacher.layer.weight.grad is None
    assert shown.images.grad is None
    assert len(student.seen) == 1  # clean and perturbed images at once: one synchronisation, one graph
    assert [tuple(images.shape) for images in teacher.seen] == ([] if name == "labels" else [(6, 3, 4, 4)])
    assert all(images is shown.images for images in teacher.seen)


def test_without_a_perturbation_rslad_is_distillation_and_its_weight_is_nothing():
    student, teacher, shown = Spy(1), Spy(2), batch()
    totals = [
        rslad(student, live(teacher), unmoved, temperature=2.0, kd_weight=weight)(shown).total for weight in (0.0, 0.4, 1.0)
    ]
    expected = 4 * mean(naive_kl(student(shown.images), teacher(shown.images), 2.0))
    assert [total.item() for total in totals] == pytest.approx([expected] * 3, rel=1e-5)
