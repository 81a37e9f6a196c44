"""What a teacher says: the same logits whether it is asked at every step or once, where the view is the image as stored."""

import math

import pytest
import torch
from torch import Tensor, nn

import tiny
from nodestill.data import Augment, Batch, eval_batches, train_batches
from nodestill.errors import InputError
from nodestill.training import distilled
from nodestill.training.lessons import live, once, taught


class Spy(nn.Module):
    """A classifier of 8x8 images that remembers what it was shown and how, and that is not the same in training mode."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.norm = nn.BatchNorm2d(3)
        self.layer = nn.Linear(192, 3)
        self.seen: list[tuple[int, bool, bool]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append((len(images), self.training, torch.is_grad_enabled()))
        return self.layer(self.norm(images).flatten(1))


DATA = tiny.images(40)
PLAIN = DATA.images.float() / 255


def augmented(epoch: int = 0, size: int = 7) -> list[Batch]:
    return list(train_batches(DATA, size, Augment(crop_padding=2, flip=True), seed=3, epoch=epoch))


def said_of(teacher: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return teacher.eval()(images)


def test_a_live_teacher_speaks_of_the_view_that_the_student_sees():
    teacher = Spy()
    lesson = live(teacher)
    for batch in augmented():
        assert torch.equal(lesson(batch), said_of(teacher, batch.images))
        assert not torch.allclose(lesson(batch), said_of(teacher, PLAIN[batch.index]))


def test_a_teacher_that_is_asked_once_speaks_of_the_image_as_stored():
    teacher = Spy()
    lesson = once(teacher, DATA)
    for batch in augmented():
        torch.testing.assert_close(lesson(batch), said_of(teacher, PLAIN[batch.index]))


def test_where_nothing_is_augmented_both_say_the_same():
    teacher = Spy()
    both = live(teacher), once(teacher, DATA)
    for batch in train_batches(DATA, 9, Augment(), seed=3, epoch=5):
        torch.testing.assert_close(*[lesson(batch) for lesson in both])


def test_the_mirrored_lesson_is_the_mean_over_image_and_mirror_image():
    teacher = Spy()
    lesson = once(teacher, DATA, mirrored=True)
    mirrored = torch.stack([torch.stack([torch.stack([row.flip(0) for row in channel]) for channel in x]) for x in PLAIN])
    mean = (said_of(teacher, PLAIN) + said_of(teacher, mirrored)) / 2
    for batch in augmented():
        torch.testing.assert_close(lesson(batch), mean[batch.index])
    assert not torch.allclose(mean, said_of(teacher, PLAIN), atol=1e-3)


@pytest.mark.parametrize(("mirrored", "times"), [(False, 1), (True, 2)])
def test_a_teacher_that_is_asked_once_is_not_asked_again(mirrored, times):
    teacher = Spy()
    lesson = once(teacher, DATA, mirrored=mirrored, batch_size=16)
    assert sum(count for count, _, _ in teacher.seen) == times * len(DATA)
    for epoch in range(3):
        for batch in augmented(epoch):
            lesson(batch)
    assert sum(count for count, _, _ in teacher.seen) == times * len(DATA)


@pytest.mark.parametrize("make", [live, lambda teacher: once(teacher, DATA)])
def test_a_teacher_is_frozen_in_evaluation_mode_and_gives_no_gradient(make):
    teacher = Spy()
    lesson = make(teacher)
    said = lesson(augmented()[0])
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert {(training, grad) for _, training, grad in teacher.seen} == {(False, False)}
    assert not said.requires_grad
    assert said.dtype == torch.float32
    (said.clone().requires_grad_() * 2).sum().backward()  # not made in inference mode, which autograd would refuse


def test_lessons_are_a_function_of_teacher_and_images_alone():
    teacher = Spy()
    first = once(teacher, DATA)
    torch.rand(11)
    again = once(Spy(), DATA)  # of the same seed
    smaller = once(teacher, DATA, batch_size=3)
    for batch in augmented():
        assert torch.equal(first(batch), again(batch))
        torch.testing.assert_close(first(batch), smaller(batch))


def test_any_images_in_any_order_are_looked_up_by_their_place():
    lesson = once(Spy(), DATA)
    whole = torch.cat([lesson(batch) for batch in eval_batches(DATA, 8)])
    index = torch.tensor([39, 0, 7, 7, 21])
    assert torch.equal(lesson(Batch(torch.zeros(5, 3, 8, 8), DATA.labels[index], index, index)), whole[index])


def test_a_batch_of_no_images_is_refused():
    with pytest.raises(InputError, match="batch_size must be at least 1, got 0"):
        once(Spy(), DATA, batch_size=0)


def test_being_taught_live_is_distillation_bit_for_bit():
    teacher, student = Spy(1), Spy(2)
    settings = {"temperature": 3.0, "kd_weight": 0.7, "label_smoothing": 0.1}
    objectives = distilled(student, teacher, **settings), taught(student, live(teacher), **settings)
    for batch in augmented():
        one, other = (objective(batch) for objective in objectives)
        assert torch.equal(one.total, other.total)
        assert one.parts.keys() == other.parts.keys()
        assert all(torch.equal(one.parts[name], other.parts[name]) for name in one.parts)


def test_being_taught_once_compares_the_students_view_with_the_teachers_image():
    teacher, student, batch = Spy(1), Spy(2).eval(), augmented()[0]
    loss = taught(student, once(teacher, DATA), temperature=2.0, kd_weight=1.0)(batch)
    kl = 0.0
    logits = zip(said_of(student, batch.images).tolist(), said_of(teacher, PLAIN[batch.index]).tolist())
    for of_student, of_teacher in logits:
        s, t = ([math.exp(value / 2) for value in row] for row in (of_student, of_teacher))
        kl += sum(q / sum(t) * math.log((q / sum(t)) / (p / sum(s))) for p, q in zip(s, t)) / len(batch.labels)
    assert loss.parts["kl"].item() == pytest.approx(kl, rel=1e-4)
    assert loss.total.item() == pytest.approx(4 * kl, rel=1e-4)
    assert loss.total.requires_grad
