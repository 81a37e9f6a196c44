"""FGSM, PGD and MI-FGSM: closed form, naive references, invariances, and what they must leave alone."""

import copy
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from attacks import oracles
from nodestill.attacks import LinfBudget, fgsm, mi_fgsm, paper_budget, pgd

LABELS = torch.tensor([0, 1, 2, 1, 0, 2])
KEYS = torch.arange(6)
ATTACKS = {"fgsm": fgsm, "pgd": partial(pgd, keys=KEYS), "mi_fgsm": mi_fgsm}


def interior(count, dtype=torch.float32):
    """Byte images at least 20/255 away from black and white."""
    return (oracles.bytes_images(count, dtype=dtype) * 255).clamp(20, 235) / 255


@pytest.mark.parametrize("eps_255", [1, 8, 20])
def test_affine_optimum_is_reached_exactly(eps_255):
    net, images, labels = oracles.Affine(192), interior(6), LABELS % 2
    best = net.best(images, labels, eps_255)
    enough = LinfBudget(eps_255, steps=2 * eps_255 + 1)  # from one face to the other; one more for rounding
    torch.testing.assert_close(pgd(net, images, labels, enough, keys=KEYS).images, best, atol=1e-7, rtol=0)
    on_bytes = (best * 255).round() / 255
    assert torch.equal(mi_fgsm(net, images, labels, LinfBudget(eps_255, steps=eps_255)).images, on_bytes)
    assert torch.equal(fgsm(net, images, labels, LinfBudget(eps_255)).images, on_bytes)


@pytest.mark.parametrize("eps_255", [4, 20])
def test_papers_pgd_cannot_cross_the_box_from_a_random_start(eps_255):
    # s steps out of 2 eps: about 60 % of the pixels reach the wanted face, a property of the protocol
    net, images, labels = oracles.Affine(192), interior(6), LABELS % 2
    best, budget = net.best(images, labels, eps_255), paper_budget(eps_255)
    arrived = (pgd(net, images, labels, budget, keys=KEYS).images - best).abs() < 1e-6
    assert float(arrived.double().mean()) == pytest.approx(budget.steps / (2 * eps_255), abs=0.05)


@pytest.mark.parametrize("eps_255", [1, 4, 9])
def test_attacks_equal_the_naive_reference(eps_255):
    net, images = oracles.small_net(torch.float64), oracles.bytes_images(6, dtype=torch.float64)
    budget = paper_budget(eps_255)
    rule = (eps_255, budget.step_255, budget.steps)
    close = partial(torch.testing.assert_close, atol=1e-12, rtol=0)
    close(mi_fgsm(net, images, LABELS, budget).images, oracles.mi_fgsm(net, images, LABELS, *rule, momentum=1.0))
    still = pgd(net, images, LABELS, budget, keys=KEYS, random_start=False)
    close(still.images, oracles.pgd(net, images, LABELS, *rule, starts=images))
    starts = pgd(net, images, LABELS, LinfBudget(eps_255, steps=0), keys=KEYS).images
    close(pgd(net, images, LABELS, budget, keys=KEYS).images, oracles.pgd(net, images, LABELS, *rule, starts=starts))


def test_momentum_zero_is_the_basic_iterative_method():
    net, images, budget = oracles.small_net(torch.float64), oracles.bytes_images(6, dtype=torch.float64), LinfBudget(6)
    plain = pgd(net, images, LABELS, budget, keys=KEYS, random_start=False)
    torch.testing.assert_close(mi_fgsm(net, images, LABELS, budget, momentum=0.0).images, plain.images, atol=1e-12, rtol=0)


def test_two_steps_by_hand():
    # logits (a, 0), label 1: the gradient has the sign of da/dx. a = 3u + v at first; beyond u = 0.5 it is -u - 4v.
    # Pixel (u, v, 0) starts at (0.5 - 0.5/255, 0.5, 0.5). Step 1: g = (3, 1, 0)/4, so u and v go up by one.
    # Step 2: slope (-1, -4, 0)/5, g = mu (.75, .25, 0) + (-.2, -.8, 0). With mu = 1: (.55, -.55, 0), u up and v down.
    # With mu = 0: u down and v down. With mu = 4: (2.8, .2, 0), u up and v up.
    def logits_fn(x):
        u, v = x[:, 0, 0, 0], x[:, 1, 0, 0]
        a = torch.where(u < 0.5, 3 * u + v, -u - 4 * v)
        return torch.stack([a, 0 * a], 1)

    start = torch.tensor([127.0, 127.0, 127.0]).view(1, 3, 1, 1) / 255
    for momentum, end in [(1.0, [129, 127, 127]), (0.0, [127, 127, 127]), (4.0, [129, 129, 127])]:
        result = mi_fgsm(logits_fn, start, torch.tensor([1]), LinfBudget(8, steps=2), momentum=momentum)
        assert (result.images.flatten() * 255).round().tolist() == end


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e30])
def test_normalisation_has_no_floor(scale):
    # a gradient that is tiny or huge as a whole must move the image like any other
    net, images, labels = oracles.Affine(192), interior(6), LABELS % 2

    def scaled(x):
        return scale * (net(x) - net(x).detach())

    result = mi_fgsm(scaled, images, labels, LinfBudget(3, steps=3))
    assert torch.equal(result.images, mi_fgsm(net, images, labels, LinfBudget(3, steps=3)).images)
    assert result.bad_gradients.sum() == 0


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("steps", [0, 5])
def test_zero_radius_returns_the_input(name, steps):
    images = torch.rand(6, 3, 8, 8)
    result = ATTACKS[name](oracles.small_net(), images, LABELS, LinfBudget(0, steps=steps))
    assert torch.equal(result.images, images)


@pytest.mark.parametrize("name", ATTACKS)
@settings(max_examples=25)
@given(
    pixels=hnp.arrays("float32", (2, 3, 2, 2), elements=st.floats(0, 1, width=32)),
    eps_255=st.integers(0, 255),
    step_255=st.integers(1, 300),
    steps=st.integers(0, 5),
)
def test_radius_and_range_are_never_exceeded(name, pixels, eps_255, step_255, steps):
    attack = partial(pgd, keys=torch.arange(2)) if name == "pgd" else ATTACKS[name]
    images = torch.from_numpy(pixels)
    budget = LinfBudget(eps_255, step_255, steps)
    adversarial = attack(oracles.Affine(12), images, torch.tensor([0, 1]), budget).images
    assert float((adversarial - images).abs().max()) <= eps_255 / 255 + 2e-7
    assert float(adversarial.min()) >= 0
    assert float(adversarial.max()) <= 1


@pytest.mark.parametrize("name", ATTACKS)
def test_the_model_is_untouched(name):
    net = oracles.small_net()
    before, images = copy.deepcopy(net.state_dict()), oracles.bytes_images(6)
    kept = images.clone()
    ATTACKS[name](net, images, LABELS, LinfBudget(4, steps=3))
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in net.parameters())
    assert not net.training
    assert torch.equal(images, kept)
    assert images.grad is None
    assert not images.requires_grad


def test_attacks_work_where_the_caller_has_switched_gradients_off():
    net, images = oracles.small_net(), oracles.bytes_images(6)
    with torch.no_grad():
        result = mi_fgsm(net, images, LABELS, LinfBudget(4, steps=3))
    assert torch.equal(result.images, mi_fgsm(net, images, LABELS, LinfBudget(4, steps=3)).images)


def test_same_seed_same_images_and_another_seed_others():
    net, images, budget = oracles.small_net(), oracles.bytes_images(6), paper_budget(8)
    first, again, other = (pgd(net, images, LABELS, budget, keys=KEYS, seed=seed).images for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_start_belongs_to_the_image_not_to_the_batch(generator):
    net, images, start = oracles.small_net(), oracles.bytes_images(6), LinfBudget(8, steps=0)
    whole = pgd(net, images, LABELS, start, keys=KEYS, seed=1).images
    order = torch.randperm(6, generator=generator)
    shuffled = pgd(net, images[order], LABELS[order], start, keys=KEYS[order], seed=1).images
    alone = pgd(net, images[3:4], LABELS[3:4], start, keys=KEYS[3:4], seed=1).images
    assert torch.equal(shuffled, whole[order])
    assert torch.equal(alone, whole[3:4])
    assert len({float(image[0, 0, 0]) for image in whole - images}) == 6


def test_fooled_is_what_the_model_says_of_the_images_returned():
    net, images = oracles.small_net(), oracles.bytes_images(6)
    result = mi_fgsm(net, images, LABELS, paper_budget(20))
    assert torch.equal(result.fooled, net(result.images).argmax(1) != LABELS)
    assert result.gradient_calls == 24
