"""Auto-PGD: the closed form where there is one, and the algorithm of the paper one image at a time."""

from fractions import Fraction
from math import ceil

import pytest
import torch
from torch import nn

from attacks import oracles
from attacks.apgd_cases import COUNT, KEYS, five_classes, interior
from nodestill.attacks import LinfBudget, pgd
from nodestill.attacks.apgd import apgd, apgd_targeted, checkpoints


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
