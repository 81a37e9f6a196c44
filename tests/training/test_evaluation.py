"""Accuracy, loss, calibration and agreement on sets small enough to count by hand."""

import math

import pytest
import torch
from torch import Tensor

import tiny
from nodestill.errors import InputError
from nodestill.intervals import wilson_interval
from nodestill.training import calibration_error, evaluate


def answering(table: Tensor):
    """A classifier that answers image after image from a table, whatever the batches are."""
    position = 0

    def logits_fn(images: Tensor) -> Tensor:
        nonlocal position
        position += len(images)
        return table[position - len(images) : position]

    return logits_fn


def sure_of(classes: list[int], confidence: float, num_classes: int = 2) -> Tensor:
    """Logits whose softmax gives the class this confidence and shares the rest."""
    probability = torch.full((len(classes), num_classes), (1 - confidence) / (num_classes - 1), dtype=torch.float64)
    probability[range(len(classes)), classes] = confidence
    return probability.log()


LABELS = [0, 1, 2, 0, 1, 2]  # of tiny.images(6)


def test_counts_by_hand():
    table = sure_of([0, 1, 2, 1, 1, 0], 0.7, 3)
    found = evaluate(answering(table), tiny.images(6), 4)
    assert (found.images, found.failed, found.agreement) == (6, 0, None)
    assert found.accuracy == pytest.approx(4 / 6)
    assert (found.accuracy_low, found.accuracy_high) == wilson_interval(4, 6)
    assert found.loss == pytest.approx(-(4 * math.log(0.7) + 2 * math.log(0.15)) / 6, rel=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_an_image_without_finite_logits_is_wrong_and_disagrees(bad):
    right, teacher = sure_of(LABELS, 0.8, 3), sure_of(LABELS, 0.6, 3)
    right[0] = bad  # argmax of NaN would be class 0: its label
    right[4, 1] = bad
    found = evaluate(answering(right), tiny.images(6), 6, teacher_fn=answering(teacher))
    assert (found.failed, found.accuracy, found.agreement) == (2, pytest.approx(4 / 6), pytest.approx(4 / 6))
    assert found.loss == pytest.approx(-math.log(0.8), rel=1e-6)  # of those that answered
    assert found.calibration_error == pytest.approx(0.2, abs=1e-6)


def test_a_model_that_never_answers_is_never_right():
    found = evaluate(answering(torch.full((6, 3), float("nan"))), tiny.images(6), 4)
    assert (found.accuracy, found.failed, found.loss) == (0.0, 6, float("inf"))


def test_agreement_is_with_the_teacher_not_with_the_labels():
    found = evaluate(
        answering(sure_of([0, 0, 0, 0, 0, 0], 0.9, 3)),
        tiny.images(6),
        4,
        teacher_fn=answering(sure_of([0, 0, 0, 1, 2, 0], 0.9, 3)),
    )
    assert found.agreement == pytest.approx(4 / 6)
    assert found.accuracy == pytest.approx(2 / 6)


def test_the_batch_size_changes_nothing_and_progress_is_told():
    data, table, told = tiny.images(7), sure_of([0, 1, 2, 0, 2, 1, 0], 0.7, 3), []
    one, other = (evaluate(answering(table), data, size, on_batch=told.append) for size in (3, 100))
    assert one == other
    assert told == [3, 6, 7, 7]


def test_evaluation_leaves_no_graph_behind():
    recording = []

    def logits_fn(images: Tensor) -> Tensor:
        recording.append(torch.is_grad_enabled())
        return images.mean((2, 3)).float()

    evaluate(logits_fn, tiny.images(6), 4)
    assert recording == [False, False]


def test_calibration_by_hand():
    """Ten answers at 0.95 of which six are right, five at 0.65 of which four are right."""
    logits = torch.cat([sure_of([0] * 10, 0.95), sure_of([0] * 5, 0.65)])
    labels = torch.tensor([0] * 6 + [1] * 4 + [0] * 4 + [1])
    expected = (10 * abs(0.6 - 0.95) + 5 * abs(0.8 - 0.65)) / 15
    assert calibration_error(logits, labels) == pytest.approx(expected, abs=1e-9)


def test_gaps_within_a_bin_cancel_and_those_between_bins_do_not():
    logits, labels = torch.cat([sure_of([0], 0.90), sure_of([0], 0.60)]), torch.tensor([1, 0])
    assert calibration_error(logits, labels, bins=15) == pytest.approx((0.9 + 0.4) / 2)
    assert calibration_error(logits, labels, bins=1) == pytest.approx((0.9 - 0.4) / 2)


def test_certainty_falls_into_the_last_bin_and_no_images_have_no_error():
    assert calibration_error(torch.tensor([[1e9, 0.0]]), torch.tensor([0])) == 0.0
    assert calibration_error(torch.tensor([[1e9, 0.0]]), torch.tensor([1])) == 1.0
    assert calibration_error(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)) == 0.0


def test_a_batch_size_of_nothing_is_refused():
    with pytest.raises(InputError, match="batch_size"):
        evaluate(answering(torch.zeros(6, 3)), tiny.images(6), 0)
