"""Sweeps: rows against counting by hand, resuming, and the counts that expose a flattering accuracy."""

import json
from dataclasses import asdict, replace

import pytest
import torch

from attacks import oracles
from nodestill.attacks import (
    AttackName,
    Protocol,
    Subject,
    adversarial_examples,
    mi_fgsm,
    paper_budget,
    pgd,
    robustness_sweep,
)
from nodestill.data import ImageSet
from nodestill.errors import InputError
from nodestill.flags import from_hex
from nodestill.intervals import wilson_interval

BOTH = [AttackName.PGD, AttackName.MI_FGSM]


@pytest.fixture
def data():
    """Eleven images, labelled by the model itself but for the first two: clean accuracy 9 / 11."""
    pixels = (oracles.bytes_images(11) * 255).round().to(torch.uint8)
    labels = oracles.small_net()(pixels / 255).argmax(1)
    labels[:2] = (labels[:2] + 1) % 3
    return ImageSet("noise", "made here", pixels, labels, ("a", "b", "c"))


def sweep(logits_fn, data, attacks=BOTH, eps=(0, 2, 8), **options):
    return list(robustness_sweep(Subject(logits_fn), data, Protocol.CHU2022, attacks, eps, 4, **options))


def timeless(rows):
    return [replace(row, seconds=0.0) for row in rows]


def test_rows_equal_counting_by_hand(data):
    net, images = oracles.small_net(), data.images / 255
    right_at_first = net(images).argmax(1) == data.labels
    keys = torch.arange(11)
    for row in sweep(net, data, seed=3):
        budget = paper_budget(row.eps_255)
        if row.attack == "pgd":
            result = pgd(net, images, data.labels, budget, keys=keys, seed=3)
        else:
            result = mi_fgsm(net, images, data.labels, budget)
        correct = ~result.fooled
        assert row.correct == correct.sum()
        assert row.robust == (correct & right_at_first).sum()
        assert (row.accuracy, row.robust_accuracy) == (row.correct / 11, row.robust / 11)
        assert row.predicted == tuple(result.predictions.bincount(minlength=3).tolist())
        assert row.survivors == tuple(data.labels[correct].bincount(minlength=3).tolist())
        assert from_hex(row.which, len(data)) == correct.tolist()
        assert (row.wilson_low, row.wilson_high) == wilson_interval(row.correct, 11)
        assert (row.steps, row.images, row.failed_images, row.seed) == (budget.steps, 11, 0, 3)


def test_order_and_settings_of_rows(data):
    rows = sweep(oracles.small_net(), data, eps=(8, 0, 2, 2))
    assert [(row.attack, row.eps_255) for row in rows] == [
        ("pgd", 0), ("pgd", 2), ("pgd", 8), ("mi-fgsm", 0), ("mi-fgsm", 2), ("mi-fgsm", 8),
    ]  # fmt: skip
    assert [row.gradient_calls for row in rows] == [0, 2, 10, 0, 2, 8]
    assert {(row.attack, row.momentum, row.random_start) for row in rows} == {
        ("pgd", None, True),
        ("mi-fgsm", 1.0, False),
    }
    assert {(row.protocol, row.schema, row.mean_evaluations) for row in rows} == {("chu2022", 1, None)}


def test_radius_zero_is_clean_accuracy(data):
    for row in sweep(oracles.small_net(), data, eps=(0,)):
        assert row.accuracy == row.robust_accuracy == row.clean_accuracy == 9 / 11
        assert row.bad_gradient_images == 0


def test_rows_are_json(data):
    row = sweep(oracles.small_net(), data, eps=(2,))[0]
    assert json.loads(json.dumps(asdict(row)))["predicted"] == list(row.predicted)


def test_a_resumed_sweep_gives_the_rows_that_were_missing(data):
    net = oracles.small_net()
    whole = timeless(sweep(net, data))
    assert timeless(sweep(net, data)) == whole
    done = {(AttackName.PGD, 0), (AttackName.PGD, 2), (AttackName.MI_FGSM, 2)}
    rest = timeless(sweep(net, data, done=done))
    expected = [row for row in whole if (AttackName(row.attack), row.eps_255) not in done]
    assert [replace(row, gradient_calls=0) for row in rest] == [replace(row, gradient_calls=0) for row in expected]
    assert rest[-1].gradient_calls == 10  # its first steps were shared with the row that is done


def test_nothing_left_to_do_asks_nothing_of_the_model(data):
    def unwanted(images):
        raise AssertionError

    assert sweep(unwanted, data, eps=(2,), done=[(AttackName.PGD, 2), (AttackName.MI_FGSM, 2)]) == []


def test_pgd_rows_come_one_by_one(data):
    rows = robustness_sweep(Subject(oracles.small_net()), data, Protocol.CHU2022, [AttackName.PGD], range(256), 4)
    assert next(rows).eps_255 == 0


def test_failed_images_are_neither_correct_nor_predicted(data):
    net = oracles.small_net()

    def failing(images):
        logits = net(images)
        return torch.where((logits.argmax(1) == 0)[:, None], torch.nan, logits)

    failed = int((net(data.images / 255).argmax(1) == 0).sum())
    assert failed > 0
    for row in sweep(failing, data, eps=(0,)):
        assert row.failed_images == failed
        assert (row.predicted[0], sum(row.predicted)) == (0, 11 - failed)
        assert row.correct == row.robust == sum(row.survivors) <= 11 - failed


def test_saturated_images_are_counted(data):
    net = oracles.small_net()
    rows = sweep(lambda images: 1e6 * net(images), data, eps=(2,))
    assert all(row.bad_gradient_images > 0 for row in rows)


def test_evaluations_are_those_of_the_adversarial_images(data):
    # a count that tells every set of images from every other also shows which seed and which keys the batches used
    net, images, budget, keys = oracles.small_net(), data.images / 255, paper_budget(4), torch.arange(11)
    subject = Subject(net, evaluations=lambda images: (images.double().flatten(1).sum(1) * 10_000).long())
    rows = list(robustness_sweep(subject, data, Protocol.CHU2022, BOTH, [4], 4, seed=3))
    attacked = [pgd(net, images, data.labels, budget, keys=keys, seed=3), mi_fgsm(net, images, data.labels, budget)]
    for row, result in zip(rows, attacked):
        assert row.mean_evaluations == pytest.approx(float(subject.evaluations(result.images).double().mean()), abs=1)


def test_mistakes_are_refused_before_the_first_row(data):
    with pytest.raises(InputError, match="eps_255"):
        robustness_sweep(Subject(oracles.small_net()), data, Protocol.CHU2022, BOTH, [-1], 4)
    with pytest.raises(InputError, match="batch_size"):
        robustness_sweep(Subject(oracles.small_net()), data, Protocol.CHU2022, BOTH, [1], 0)


def test_gallery_shows_the_first_images_of_the_sweep(data):
    net = oracles.small_net()
    gallery = adversarial_examples(Subject(net), data, 8, 5, seed=3)
    keys = torch.arange(5)
    expected = pgd(net, data.images[:5] / 255, data.labels[:5], paper_budget(8), keys=keys, seed=3)
    assert torch.equal(gallery.adversarial, expected.images)
    assert torch.equal(gallery.clean_predictions, net(gallery.images).argmax(1))
    assert torch.equal(gallery.adversarial_predictions, net(gallery.adversarial).argmax(1))
    assert torch.equal(gallery.labels, data.labels[:5])
