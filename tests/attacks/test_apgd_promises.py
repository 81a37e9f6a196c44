"""Auto-PGD with every loss and target: what is promised of batches, radius, model, cost, failures and mistakes."""

import copy
import subprocess
import sys
from functools import partial
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from attacks import oracles
from attacks.apgd_cases import COUNT, KEYS, five_classes, interior
from nodestill.attacks import LinfBudget
from nodestill.attacks.apgd import apgd, apgd_targeted
from nodestill.attacks.losses import cross_entropy, dlr, margin
from nodestill.errors import InputError

ATTACKS = {
    "cross-entropy": partial(apgd, seed=3),
    "dlr": partial(apgd, loss=dlr, seed=3),
    "margin": partial(apgd, loss=margin, restart=2),
    "targeted": partial(apgd_targeted, seed=3, targets=3),
}


def one_by_one(net):
    """The same model, without what kernels do to the last bit when the batch has another size."""
    return lambda images: torch.cat([net(image[None]) for image in images])


@pytest.mark.parametrize("name", ATTACKS)
def test_an_image_is_attacked_alone_as_in_any_batch(name, generator):
    attack, net, images = ATTACKS[name], five_classes(), oracles.bytes_images(COUNT, dtype=torch.float64)
    labels, budget, keys = net(images).argmax(1), LinfBudget(2, steps=25), KEYS + 1000
    whole = attack(one_by_one(net), images, labels, budget, keys=keys)
    assert 0 < int(whole.fooled.sum()) < COUNT
    order = torch.randperm(COUNT, generator=generator)
    shuffled = attack(one_by_one(net), images[order], labels[order], budget, keys=keys[order])
    assert torch.equal(shuffled.images, whole.images[order])
    assert torch.equal(shuffled.bad_gradients, whole.bad_gradients[order])
    for i in range(COUNT):
        alone = attack(net, images[i : i + 1], labels[i : i + 1], budget, keys=keys[i : i + 1])
        assert torch.equal(alone.images[0], whole.images[i])


@pytest.mark.parametrize("name", ATTACKS)
@settings(max_examples=20)
@given(
    pixels=hnp.arrays("float32", (2, 3, 2, 2), elements=st.floats(0, 1, width=32)),
    eps_255=st.integers(0, 255),
    steps=st.integers(0, 7),
)
def test_radius_and_range_are_never_exceeded(name, pixels, eps_255, steps):
    torch.manual_seed(7)
    net, images = nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), torch.from_numpy(pixels)
    labels = net(images).argmax(1)
    adversarial = ATTACKS[name](net, images, labels, LinfBudget(eps_255, steps=steps), keys=KEYS[:2]).images
    assert float((adversarial - images).abs().max()) <= eps_255 / 255 + 2e-7
    assert float(adversarial.min()) >= 0
    assert float(adversarial.max()) <= 1


@pytest.mark.parametrize("name", ATTACKS)
def test_the_model_is_untouched_and_the_result_is_what_it_says(name):
    net, images = five_classes(), oracles.bytes_images(COUNT, dtype=torch.float64)
    labels, before, kept = net(images).argmax(1), copy.deepcopy(net.state_dict()), images.clone()
    result = ATTACKS[name](net, images, labels, LinfBudget(3, steps=5), keys=KEYS)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in net.parameters())
    assert not net.training
    assert torch.equal(images, kept)
    assert not images.requires_grad
    assert torch.equal(result.fooled, net(result.images).argmax(1) != labels)
    assert torch.equal(result.predictions, net(result.images).argmax(1))


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_work_where_the_caller_has_switched_gradients_off(name):
    net, images = five_classes(), oracles.bytes_images(COUNT, dtype=torch.float64)
    labels, budget = net(images).argmax(1), LinfBudget(3, steps=5)
    with torch.no_grad():
        result = ATTACKS[name](net, images, labels, budget, keys=KEYS)
    assert torch.equal(result.images, ATTACKS[name](net, images, labels, budget, keys=KEYS).images)


def test_more_steps_fool_more_and_unfool_none():
    net, images = five_classes(), oracles.bytes_images(COUNT, dtype=torch.float64)
    labels = net(images).argmax(1)
    few, many = (
        apgd(lambda x: 30 * net(x), images, labels, LinfBudget(6, steps=steps), keys=KEYS, loss=dlr) for steps in (1, 30)
    )
    assert int(few.fooled.sum()) < int(many.fooled.sum())
    assert torch.equal(few.images[few.fooled], many.images[few.fooled])


class Counted:
    """A model that counts how often it was asked for a gradient."""

    def __init__(self, net):
        self.net, self.calls = net, 0

    def __call__(self, images):
        self.calls += images.requires_grad
        return self.net(images)


def test_no_gradient_is_taken_for_nothing():
    net, images = Counted(five_classes()), oracles.bytes_images(COUNT, dtype=torch.float64)
    labels = net(images).argmax(1)
    unfooled = apgd(net, images, labels, LinfBudget(1, steps=15), keys=KEYS)
    assert not unfooled.fooled.all()
    assert (net.calls, unfooled.gradient_calls) == (15, 15)
    wrong = apgd(net, images, (labels + 1) % 5, LinfBudget(1, steps=15), keys=KEYS)
    assert wrong.fooled.all()
    assert (net.calls, wrong.gradient_calls) == (16, 1)


def test_targeted_runs_go_through_the_classes_add_up_and_keep_what_they_found():
    # the likeliest wrong class has the weights of the right one, so that no perturbation reaches it
    net, images, eps_255 = oracles.Affine(192, torch.float64), interior(), 4

    def with_decoys(x):
        return torch.cat([net(x), net(x) - 1e-4, torch.full_like(net(x)[:, :1], -1)], 1)

    counted, margins = Counted(with_decoys), net(images)[:, 1]
    labels = (margins > 0).long()
    labels[0] = 4
    reachable = eps_255 / 255 * net.direction.abs().sum() > margins.abs()
    reachable[0] = True
    budget = LinfBudget(eps_255, steps=10)
    one, two, all_four = (apgd_targeted(counted, images, labels, budget, keys=KEYS, targets=n) for n in (1, 2, 9))
    assert [result.gradient_calls for result in (one, two, all_four)] == [10, 20, 40]
    assert counted.calls == 70
    assert int(one.fooled.sum()) < int(reachable.sum()) < COUNT
    assert torch.equal(two.fooled, reachable)
    for fewer, more in pairwise([one, two, all_four]):
        assert torch.equal(fewer.images[fewer.fooled], more.images[fewer.fooled])
    assert torch.equal(one.images[0], images[0])


def test_saturated_cross_entropy_is_seen_and_the_ratio_of_logits_does_not_saturate():
    net, images = five_classes(torch.float32), oracles.bytes_images(COUNT)
    labels, budget = net(images).argmax(1), LinfBudget(3, steps=10)

    def sure(x):
        return 1e5 * net(x)

    flat, steep = (apgd(sure, images, labels, budget, keys=KEYS, loss=loss) for loss in (cross_entropy, dlr))
    assert (flat.bad_gradients[~flat.fooled] == 10).any()
    assert steep.bad_gradients.sum() == 0
    assert int(steep.fooled.sum()) > int(flat.fooled.sum())


def test_failed_logits_are_never_robust():
    net, images = five_classes(), oracles.bytes_images(COUNT, dtype=torch.float64)
    labels, bad = net(images).argmax(1), (KEYS < 4)[:, None]
    for attack in ATTACKS.values():
        result = attack(lambda x: torch.where(bad, torch.nan, net(x)), images, labels, LinfBudget(1, steps=3), keys=KEYS)
        assert result.predictions[:4].tolist() == [-1] * 4
        assert result.fooled[:4].all()


def test_a_failure_is_kept_like_any_other_success():
    # a start is classified; an image that has gone a whole step is not, unless it is the first one
    images = interior()

    def fails_on_faces(x):
        on_face = ((x - images).abs() > 3.999 / 255).double().mean((1, 2, 3))
        fails = (on_face > 0.5) & (KEYS > 0)
        return torch.where(fails[:, None], torch.nan, oracles.Affine(192)(x) + torch.tensor([9.0, 0.0]))

    result = apgd(fails_on_faces, images, torch.zeros_like(KEYS), LinfBudget(4, steps=20), keys=KEYS)
    assert result.predictions.tolist() == [0] + [-1] * (COUNT - 1)
    assert result.bad_gradients.tolist() == [0] + [1] * (COUNT - 1)  # counted where it happened, not where it stays


def test_missing_keys_are_refused():
    # in a plain interpreter, as users have it: the type checks of these tests would catch it first
    program = """
import torch
from nodestill.attacks import LinfBudget
from nodestill.attacks.apgd import apgd, apgd_targeted
from nodestill.attacks.square import square
from nodestill.errors import InputError
case = torch.nn.Flatten(), torch.zeros(2, 3, 1, 2), torch.zeros(2, dtype=torch.int64), LinfBudget(1)
for attack in (apgd, apgd_targeted, square):
    try:
        attack(*case, keys=torch.arange(3))
    except InputError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.count("3 keys do not fit 2 images") == 3


def test_mistakes_are_refused():
    net, images, budget = oracles.small_net(), oracles.bytes_images(4), LinfBudget(2, steps=2)
    labels = torch.tensor([0, 1, 2, 1])
    for attack in (apgd, apgd_targeted):
        with pytest.raises(InputError, match="must lie in"):
            attack(net, 2 * images, labels, budget, keys=torch.arange(4))
    with pytest.raises(InputError, match="at least 4 classes"):
        apgd_targeted(net, images, net(images).argmax(1), budget, keys=torch.arange(4))
    with pytest.raises(InputError, match="targets"):
        apgd_targeted(net, images, labels, budget, keys=torch.arange(4), targets=0)
