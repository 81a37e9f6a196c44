"""Auto-PGD: the closed form where there is one, the algorithm of the paper one image at a time, invariances, parity."""

import copy
import subprocess
import sys
from fractions import Fraction
from functools import partial
from itertools import pairwise
from math import ceil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.datasets import load_digits
from torch import nn

from attacks import oracles
from nodestill.attacks import LinfBudget, pgd
from nodestill.attacks.apgd import apgd, apgd_targeted, checkpoints
from nodestill.attacks.losses import cross_entropy, dlr, margin
from nodestill.errors import InputError

COUNT = 12
KEYS = torch.arange(COUNT)


def interior(count=COUNT, dtype=torch.float64):
    """Byte images at least 20/255 away from black and white."""
    return (oracles.bytes_images(count, dtype=dtype) * 255).clamp(20, 235) / 255


def five_classes(dtype=torch.float64):
    """A convolutional classifier that is fooled within a few 1/255 and knows all its classes."""
    torch.manual_seed(5)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Tanh(), nn.Conv2d(6, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(96, 5))
    with torch.no_grad():
        net[0].weight *= 2
        net[0].bias.copy_(-net[0].weight.sum((1, 2, 3)) / 2)  # grey is zero
        net[2].bias.zero_()
        net[5].bias.zero_()
    return net.to(dtype).eval()


def linear(classes=6):
    """Logits linear in the pixels: the radius at which each image can be fooled is known."""
    torch.manual_seed(6)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, classes, bias=False)).double()


def linear_radius(net, images, labels):
    """In pixel units, while no pixel meets a face: the least (z_y - z_t) / ‖w_y - w_t‖₁ over the classes t."""
    weight, logits = net[1].weight, net(images)
    gaps = logits.gather(1, labels[:, None]) - logits
    norms = (weight[labels][:, None] - weight[None]).abs().sum(2)
    return (gaps / norms).scatter(1, labels[:, None], torch.inf).amin(1).detach()


class Counted:
    """A model that counts how often it was asked for a gradient."""

    def __init__(self, net):
        self.net, self.calls = net, 0

    def __call__(self, images):
        self.calls += images.requires_grad
        return self.net(images)


def one_by_one(net):
    """The same model, without what kernels do to the last bit when the batch has another size."""
    return lambda images: torch.cat([net(image[None]) for image in images])


@pytest.mark.parametrize("steps", [1, 10])
@pytest.mark.parametrize("eps_255", [1, 3, 5, 8])
def test_affine_optimum_is_reached_and_decides_who_is_fooled(eps_255, steps):
    net, images = oracles.Affine(192, torch.float64), interior()
    labels = net(images).argmax(1)
    result = apgd(net, images, labels, LinfBudget(eps_255, steps=steps), keys=KEYS)
    reachable = eps_255 / 255 * net.direction.abs().sum() > (net(images)[:, 1]).abs()
    assert torch.equal(result.fooled, reachable)
    best = net.best(images, labels, eps_255)
    torch.testing.assert_close(result.images[~reachable], best[~reachable], atol=1e-12, rtol=0)


def test_affine_images_are_of_both_kinds():
    net, images = oracles.Affine(192, torch.float64), interior()
    radii = 255 * net(images)[:, 1].abs() / net.direction.abs().sum()
    assert int((radii < 3).sum()) >= 2
    assert int((radii > 5).sum()) >= 2


def test_a_linear_classifier_of_many_classes_is_fooled_wherever_it_can_be():
    net, images = linear(), interior(40)
    labels = net(images).argmax(1)
    radii = 255 * linear_radius(net, images, labels)
    assert float(radii.max()) < 20
    for eps_255 in (1, 2, 4):
        result = apgd_targeted(net, images, labels, LinfBudget(eps_255, steps=30), keys=torch.arange(40), targets=5)
        assert torch.equal(result.fooled, radii < eps_255)
        assert 0 < int(result.fooled.sum()) < 40


def test_checkpoints_are_those_of_the_paper():
    assert list(checkpoints(100)) == [0, 22, 41, 57, 70, 80, 87, 93, 99]
    assert list(checkpoints(100).values()) == [0, 22, 19, 16, 13, 10, 7, 6, 6]
    assert checkpoints(5) == {0: 0, 2: 2, 3: 1, 4: 1, 5: 1}


def naive_apgd(look, image, eps, steps, start):
    """Algorithm 1 of Croce and Hein, 2020, as it is written; the best point replaces the iterate of the checkpoint.

    `look(x, k)` returns the loss, the gradient and whether the image is misclassified.
    """
    shares = [Fraction(0), Fraction(22, 100)]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - Fraction(3, 100), Fraction(6, 100)))
    w = sorted({ceil(share * steps) for share in shares})
    x, f, slopes, f_max = [start], [], [], []
    eta, f_max_before, eta_before = 2 * eps, None, None
    for k in range(steps + 1):
        value, slope, fooled = look(x[k], k)
        if fooled:
            return x[k], k
        f, slopes = [*f, value], [*slopes, slope]
        if not f_max or value > f_max[-1]:
            f_best, x_best, slope_best = value, x[k], slope
        f_max.append(f_best)
        if k == steps:
            return x_best, k
        if k in w:
            since = w[max(w.index(k) - 1, 0)]
            too_few = sum(f[i + 1] > f[i] for i in range(since, k)) < 0.75 * (k - since)
            stalled = eta_before == eta and f_max_before == f_best
            eta_before, f_max_before = eta, f_best
            if too_few or stalled:
                eta, x[k], f[k], slopes[k] = eta / 2, x_best, f_best, slope_best
        z = oracles.clip(x[k] + eta * slopes[k].sign(), image, eps)
        a = 1.0 if k == 0 else 0.75
        x.append(oracles.clip(x[k] + a * (z - x[k]) + (1 - a) * (x[k] - x[max(k - 1, 0)]), image, eps))


@pytest.mark.parametrize(("eps_255", "steps"), [(1, 100), (2, 37), (3, 60), (6, 9)])
def test_every_image_takes_the_way_of_the_paper(eps_255, steps):
    net, images = five_classes(), oracles.bytes_images(COUNT, dtype=torch.float64)
    labels = net(images).argmax(1)

    def naive(image, label, start):
        def look(x, k):
            logits = net(x[None])[0].detach()
            loss = -float(torch.log_softmax(logits, 0)[label])
            return loss, oracles.gradient(net, x, label), int(logits.argmax()) != label

        return naive_apgd(look, image, eps_255 / 255, steps, start)

    starts = apgd(net, images, labels, LinfBudget(eps_255, steps=0), keys=KEYS).images
    result = apgd(net, images, labels, LinfBudget(eps_255, steps=steps), keys=KEYS)
    expected = [naive(*case) for case in zip(images, labels, starts)]
    torch.testing.assert_close(result.images, torch.stack([image for image, _ in expected]), atol=1e-10, rtol=0)
    assert result.gradient_calls == max(taken for _, taken in expected)


def test_the_rule_for_steps_is_that_of_the_paper_whatever_the_loss_does(generator):
    # losses and gradients from a script: long climbs and deep falls, which no network shows in twelve images
    count, steps, images = 100, 100, torch.full((100, 3, 2, 2), 0.5, dtype=torch.float64)
    falls = torch.rand((steps + 1, count), generator=generator) < 0.13
    values = torch.where(falls, -6.0, torch.rand((steps + 1, count), generator=generator)).double().cumsum(0)
    slopes = torch.randn((steps + 1, count, 12), generator=generator, dtype=torch.float64)
    looks = iter(range(steps + 1))

    def scripted(logits, labels):
        k, pixels = next(looks), logits[:, 1:]
        return values[k] + ((pixels - pixels.detach()) * slopes[k]).sum(1)

    def sure(x):
        return torch.cat([torch.full_like(x[:, :1, 0, 0], 9), x.flatten(1)], 1)

    keys, labels, budget = torch.arange(count), torch.zeros(count, dtype=torch.int64), LinfBudget(8, steps=steps)
    starts = apgd(sure, images, labels, LinfBudget(8, steps=0), keys=keys).images
    result = apgd(sure, images, labels, budget, keys=keys, loss=scripted)
    for i in range(count):
        look = lambda x, k: (float(values[k, i]), slopes[k, i].view(3, 2, 2), False)  # noqa: B023, E731
        expected, _ = naive_apgd(look, images[i], 8 / 255, steps, starts[i])
        torch.testing.assert_close(result.images[i], expected, atol=1e-10, rtol=0)


def test_starts_touch_a_face_and_are_not_those_of_pgd():
    net, images, none = oracles.small_net(torch.float64), interior(), LinfBudget(8, steps=0)
    labels = net(images).argmax(1)
    start = apgd(net, images, labels, none, keys=KEYS, seed=1).images - images
    largest = start.abs().amax((1, 2, 3))
    torch.testing.assert_close(largest, torch.full_like(largest, 8 / 255), atol=1e-7, rtol=0)
    others = [
        pgd(net, images, labels, none, keys=KEYS, seed=1),
        apgd(net, images, labels, none, keys=KEYS, seed=2),
        apgd(net, images, labels, none, keys=KEYS, seed=1, restart=1),
        apgd(net, images, labels, none, keys=KEYS + 50, seed=1),
        apgd(net, images, labels, LinfBudget(9, steps=0), keys=KEYS, seed=1),
        apgd_targeted(five_classes(), images, five_classes()(images).argmax(1), none, keys=KEYS, seed=1, targets=1),
    ]
    for other in others:
        both = torch.stack([start.flatten(), (other.images - images).flatten()])
        assert abs(float(torch.corrcoef(both)[0, 1])) < 5 / both.shape[1] ** 0.5


ATTACKS = {
    "cross-entropy": partial(apgd, seed=3),
    "dlr": partial(apgd, loss=dlr, seed=3),
    "margin": partial(apgd, loss=margin, restart=2),
    "targeted": partial(apgd_targeted, seed=3, targets=3),
}


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
@settings(max_examples=20, deadline=None)
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


@pytest.fixture(scope="module")
def digits():
    """A small classifier of handwritten digits, and 120 images that it has not seen."""
    images, labels = load_digits(return_X_y=True)
    images = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8).expand(-1, 3, 8, 8) / 16
    labels, generator = torch.tensor(labels, dtype=torch.int64), torch.Generator().manual_seed(8)
    torch.manual_seed(8)
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(200):
        batch = torch.randint(0, 1500, (64,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images[batch]), labels[batch]).backward()
        optimizer.step()
    return net.eval(), images[1500:1620].contiguous(), labels[1500:1620]


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore:there are .* points with zero gradient:Warning")
@pytest.mark.parametrize("name", ["ce", "dlr", "targeted"])
@pytest.mark.parametrize("eps_255", [20, 36])
def test_the_authors_code_leaves_the_same_accuracy(digits, name, eps_255):
    theirs = pytest.importorskip("pyautoattack.autopgd_base")
    net, images, labels = digits
    keys, budget = torch.arange(120), LinfBudget(eps_255, steps=25)

    options = {"n_iter": 25, "norm": "Linf", "eps": eps_255 / 255, "device": "cpu"}

    def their_accuracy(seed):
        if name == "targeted":
            attack = theirs.APGDAttack_targeted(net, seed=seed, **options)
        else:
            attack = theirs.APGDAttack(net, loss=name, seed=seed, **options)
        return float((net(attack.perturb(images.clone(), labels.clone())).argmax(1) == labels).double().mean())

    attacks = {"ce": apgd, "dlr": partial(apgd, loss=dlr), "targeted": apgd_targeted}
    results = [attacks[name](net, images, labels, budget, keys=keys, seed=seed) for seed in range(2)]
    ours = sum(1 - float(result.fooled.double().mean()) for result in results) / 2
    expected = (their_accuracy(0) + their_accuracy(1)) / 2
    assert 0.2 < expected < 0.7
    assert ours == pytest.approx(expected, abs=0.02)
