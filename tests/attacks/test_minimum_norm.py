"""Minimum norms: the closed form of linear classifiers, what is returned when there is nothing to return, and foolbox."""

import copy
import math

import pytest
import torch
from torch import nn

from attacks import oracles
from attacks.apgd_cases import COUNT, five_classes, interior
from nodestill.attacks.minimum_norm import fast_minimum_norm, l2_normalized
from nodestill.errors import InputError


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_affine_radius_is_the_closed_form(dtype):
    net, images = oracles.Affine(192, dtype), interior(dtype=dtype)
    labels = net(images).argmax(1)
    exact = 255 * net(images)[:, 1].abs() / net.direction.abs().sum()
    assert float(exact.min()) > 0.01
    assert float(exact.max()) < 20  # no pixel meets black or white
    result = fast_minimum_norm(net, images, labels)
    ratio = result.radius / exact
    assert float(ratio.min()) > 1 - 1e-4
    assert float(ratio.max()) < 1.001


def test_radius_of_a_linear_classifier_is_that_of_the_nearest_class():
    torch.manual_seed(6)
    net, images = nn.Sequential(nn.Flatten(), nn.Linear(192, 6, bias=False)).double(), interior(40)
    logits, weight = net(images), net[1].weight
    labels = logits.argmax(1)
    norms = (weight[labels][:, None] - weight[None]).abs().sum(2)
    gaps = (logits.gather(1, labels[:, None]) - logits) / norms
    exact = 255 * gaps.scatter(1, labels[:, None], torch.inf).amin(1).detach()
    assert float(exact.max()) < 20
    ratio = fast_minimum_norm(net, images, labels).radius / exact
    assert float(ratio.min()) > 1 - 1e-9
    assert float(ratio.median()) < 1.001
    assert float(ratio.quantile(0.9)) < 1.05


def test_faces_of_the_range_are_kept_and_cost_radius():
    # a pixel that is white cannot become brighter, so only the other two of three equal weights help
    class Bright(nn.Module):
        def forward(self, images):
            brightness = images.flatten(1).sum(1) - 2.25
            return torch.stack([0 * brightness, brightness], 1)

    image = torch.tensor([1.0, 0.5, 0.5]).double().view(1, 3, 1, 1)
    result = fast_minimum_norm(Bright(), image, torch.tensor([0]), steps=200)
    assert float(result.radius) == pytest.approx(255 * 0.125, rel=5e-3)
    assert result.images.flatten().tolist() == pytest.approx([1, 0.625, 0.625], abs=1e-3)


def naive_minimum_norm(model, image, label, steps, first_step):
    """The head of the module, one image at a time."""
    x, r, best_norm, best = image, math.inf, math.inf, None
    for k in range(steps):
        fall = (1 + math.cos(math.pi * k / steps)) / 2
        alpha, gamma = first_step * (0.01 + 0.99 * fall), 0.001 + 0.049 * fall
        z = x.clone().requires_grad_(True)
        logits = model(z[None])[0]
        margin = max(other for i, other in enumerate(logits) if i != label) - logits[label]
        (slope,) = torch.autograd.grad(margin, z)
        norm = float((x - image).abs().max())
        if int(logits.argmax()) != label:
            best_norm, best = (norm, x) if norm <= best_norm else (best_norm, best)
            r = min((1 - gamma) * r, best_norm)
        elif best is not None:
            r = (1 + gamma) * r
        else:
            r = (1 + gamma) * (norm + float(margin.detach().abs() / slope.abs().sum()))
        x = oracles.clip(x + alpha * slope / slope.norm(), image, r)
    return best


@pytest.mark.parametrize(("first_step", "steps"), [(10.0, 60), (0.3, 40), (0.05, 60)])
def test_every_image_takes_the_way_of_the_naive_reference(first_step, steps):
    net, images = five_classes(), oracles.bytes_images(8, dtype=torch.float64)
    labels = net(images).argmax(1)
    naive = [naive_minimum_norm(net, image, int(label), steps, first_step) for image, label in zip(images, labels)]
    result = fast_minimum_norm(net, images, labels, steps=steps, first_step=first_step)
    expected = torch.stack([image if found is None else found for image, found in zip(images, naive)])
    torch.testing.assert_close(result.images, expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_returned_is_misclassified_and_as_far_away_as_it_says(dtype):
    net, images = five_classes(dtype), oracles.bytes_images(40, dtype=dtype)
    labels = net(images).argmax(1)
    labels[:3] = (labels[:3] + 1) % 5
    result = fast_minimum_norm(net, images, labels, steps=50)
    assert torch.isfinite(result.radius).all()
    assert (net(result.images).argmax(1) != labels).all()
    assert torch.equal(255 * (result.images - images).abs().amax((1, 2, 3)), result.radius)
    assert float(result.images.min()) >= 0
    assert float(result.images.max()) <= 1
    assert result.radius[:3].tolist() == [0, 0, 0]
    assert (result.radius[3:] > 0).all()
    assert (result.gradient_calls, int(result.bad_gradients.sum())) == (50, 0)


def test_an_image_has_its_own_radius_whatever_the_batch(generator):
    net, images = five_classes(), oracles.bytes_images(COUNT, dtype=torch.float64)
    labels, order = net(images).argmax(1), torch.randperm(COUNT, generator=generator)
    whole = fast_minimum_norm(net, images, labels, steps=40)
    shuffled = fast_minimum_norm(net, images[order], labels[order], steps=40)
    torch.testing.assert_close(shuffled.radius, whole.radius[order], atol=0, rtol=1e-6)
    for i in range(COUNT):
        alone = fast_minimum_norm(net, images[i : i + 1], labels[i : i + 1], steps=40)
        torch.testing.assert_close(alone.radius, whole.radius[i : i + 1], atol=0, rtol=1e-6)


def test_more_steps_find_smaller_radii():
    net, images = five_classes(), oracles.bytes_images(COUNT, dtype=torch.float64)
    labels = net(images).argmax(1)
    few, many = (fast_minimum_norm(net, images, labels, steps=steps).radius for steps in (15, 200))
    assert float((many / few).median()) < 0.999
    assert float((many / few).max()) < 1.02


def test_the_model_is_untouched():
    net, images = oracles.small_net(), oracles.bytes_images(6)
    labels, before, kept = net(images).argmax(1), copy.deepcopy(net.state_dict()), images.clone()
    fast_minimum_norm(net, images, labels, steps=5)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in net.parameters())
    assert not net.training
    assert torch.equal(images, kept)
    assert not images.requires_grad


def test_the_search_works_where_the_caller_has_switched_gradients_off():
    net, images = oracles.small_net(), oracles.bytes_images(6)
    labels = net(images).argmax(1)
    with torch.no_grad():
        radius = fast_minimum_norm(net, images, labels, steps=5).radius
    assert torch.equal(radius, fast_minimum_norm(net, images, labels, steps=5).radius)


def test_where_nothing_is_found_the_radius_is_infinite_and_the_image_clean():
    images = oracles.bytes_images(2)

    def constant(x):
        assert torch.isfinite(x).all()
        return torch.tensor([[1.0, 0.0]]) + 0 * x.flatten(1)[:, :2]

    for logits_fn in (constant, lambda x: 0 * constant(x)):  # also where a margin of zero meets a gradient of zero
        result = fast_minimum_norm(logits_fn, images, torch.tensor([0, 1]), steps=7)
        assert result.radius.tolist() == [torch.inf, 0]
        assert torch.equal(result.images, images)
        assert result.bad_gradients.tolist() == [7, 7]


def test_a_success_that_the_last_look_denies_is_none():
    net, images = five_classes(), oracles.bytes_images(4, dtype=torch.float64)
    labels = net(images).argmax(1)

    def fickle(x):
        return net(x) if x.requires_grad else nn.functional.one_hot(labels, 5).double()

    result = fast_minimum_norm(fickle, images, labels, steps=30)
    assert result.radius.tolist() == [torch.inf] * 4
    assert torch.equal(result.images, images)


def test_failed_logits_are_never_robust():
    net, images = five_classes(), oracles.bytes_images(4, dtype=torch.float64)
    labels, bad = net(images).argmax(1), (torch.arange(4) < 2)[:, None]
    result = fast_minimum_norm(lambda x: torch.where(bad, torch.nan, net(x)), images, labels, steps=5)
    assert result.radius[:2].tolist() == [0, 0]


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_normalisation_has_no_floor(scale):
    slopes = torch.randn(5, 3, 4, 4) * torch.tensor([1e-30, 1e-20, 1.0, 1e30, 0.0]).view(5, 1, 1, 1)
    norms = l2_normalized(slopes).square().sum((1, 2, 3)).sqrt()
    torch.testing.assert_close(norms, torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0]))
    net, images = five_classes(torch.float32), oracles.bytes_images(4)
    labels = net(images).argmax(1)
    scaled = fast_minimum_norm(lambda x: scale * net(x), images, labels, steps=40).radius
    torch.testing.assert_close(scaled, fast_minimum_norm(net, images, labels, steps=40).radius, atol=0, rtol=0.02)


@pytest.mark.parametrize(("name", "value"), [("steps", 0), ("first_step", 0.0), ("first_gamma", 1.0), ("first_gamma", 0.0)])
def test_mistakes_are_refused(name, value):
    net, images = oracles.small_net(), oracles.bytes_images(2)
    with pytest.raises(InputError, match=name):
        fast_minimum_norm(net, images, torch.tensor([0, 1]), **{name: value})
    with pytest.raises(InputError, match="must lie in"):
        fast_minimum_norm(net, 2 * images, torch.tensor([0, 1]))


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore:Please import .* from the `scipy:DeprecationWarning")
@pytest.mark.parametrize("first_step", [10.0, 1.0])
def test_foolbox_finds_the_same_norms(first_step):
    # foolbox follows the paper, whose first estimate of the radius stays on the near side of a concave boundary
    foolbox = pytest.importorskip("foolbox")
    net, images = five_classes(), oracles.bytes_images(40, dtype=torch.float64)
    labels = net(images).argmax(1)
    model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.LInfFMNAttack(steps=100, max_stepsize=first_step, gamma=0.05)
    _, theirs, found = attack(model, images, labels, epsilons=1.0)
    assert found.all()
    ours = fast_minimum_norm(net, images, labels, steps=100, first_step=first_step).radius
    ratio = ours / (255 * (theirs - images).abs().amax((1, 2, 3)))
    torch.testing.assert_close(ratio, torch.ones_like(ratio), atol=0.01, rtol=0)
