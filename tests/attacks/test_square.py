"""The square attack: the squares it asks about, what it must find and cannot find, invariances, parity."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from attacks import oracles
from nodestill.attacks import LinfBudget
from nodestill.attacks.square import side, square
from nodestill.errors import InputError

COUNT = 12
KEYS = torch.arange(COUNT)


def interior(count=COUNT, size=8):
    """Byte images at least 20/255 away from black and white."""
    return (oracles.bytes_images(count, size, dtype=torch.float64) * 255).clamp(20, 235) / 255


class Recorded:
    """A model that keeps what it was asked about."""

    def __init__(self, net):
        self.net, self.asked = net, []

    def __call__(self, images):
        assert not torch.is_grad_enabled()
        assert not images.requires_grad
        self.asked.append(images.clone())
        return self.net(images)


def certain(images):
    """Logits that never change: no proposal is ever kept."""
    return torch.tensor([[1.0, 0.0]], dtype=images.dtype).expand(len(images), 2)


def by_colour(images):
    """Two classes told apart by weighted means of the channels: the best perturbation has one sign per channel."""
    margin = (images - 0.5).mean((2, 3)) @ torch.tensor([1.0, -0.7, 0.5]).to(images)
    return torch.stack([-margin, margin], 1)


def test_the_first_query_is_of_vertical_stripes():
    model, images = Recorded(certain), interior()
    square(model, images, torch.zeros(COUNT, dtype=torch.int64), LinfBudget(8, steps=1), keys=KEYS)
    stripes = (model.asked[0] - images) * 255
    torch.testing.assert_close(stripes.abs(), torch.full_like(stripes, 8.0))
    torch.testing.assert_close(stripes, stripes[:, :, :1].expand_as(stripes))  # from top to bottom
    assert abs(float(stripes[:, :, 0].mean())) < 8 * 5 / (COUNT * 24) ** 0.5
    assert len({tuple(stripe) for stripe in stripes[:, :, 0].sign().flatten(1).tolist()}) == COUNT


def test_every_other_query_replaces_one_square_by_one_colour():
    count, queries, images = 20, 200, interior(20)
    model = Recorded(certain)
    square(model, images, torch.zeros(count, dtype=torch.int64), LinfBudget(8, steps=queries), keys=torch.arange(count))
    assert len(model.asked) == queries + 1  # and one to score
    stripes, touched, colours, whole = model.asked[0], torch.zeros(8, 8), set(), set()
    for query, asked in enumerate(model.asked[1:-1], 1):
        length = side(query, queries, 8, 8)
        for shift, changed in zip(asked - images, asked != stripes):
            if changed.any():
                place = changed.any(0).nonzero()
                extent = (place.amax(0) - place.amin(0) + 1).tolist()
                assert max(extent) <= length
                whole |= {length} if extent == [length, length] else set()
                touched += changed.any(0)
                values = shift[:, changed.any(0)]
                torch.testing.assert_close(values, values[:, :1].expand_as(values))
                colours.add(tuple(values[:, 0].sign().tolist()))
    assert whole == {side(query, queries, 8, 8) for query in range(1, queries)} == {5, 4, 3, 2, 1}
    assert (touched > 0).all()  # the last row and column too
    assert len(colours) == 8


def test_squares_are_as_often_at_one_border_as_at_the_other():
    # one pixel wide for most of the search, so each row and column is met by an eighth of them
    model, images = Recorded(certain), torch.full((500, 3, 8, 8), 0.5)
    square(model, images, torch.zeros(500, dtype=torch.int64), LinfBudget(8, steps=10), keys=torch.arange(500))
    places = torch.stack([(asked != model.asked[0]).any(1).double().mean(0) for asked in model.asked[3:-1]]).mean(0)
    torch.testing.assert_close(places, places.mean().expand(8, 8), atol=0.01, rtol=0)


def published_share(query, queries):
    at = query / queries * 10_000
    for bound, parts in [(10, 1), (50, 2), (200, 4), (500, 8), (1000, 16), (2000, 32), (4000, 64), (6000, 128), (8000, 256)]:
        if at <= bound:
            return 0.8 / parts
    return 0.8 / 512


@pytest.mark.parametrize("queries", [10, 137, 5000, 10_000])
def test_the_schedule_is_the_published_one_stretched(queries):
    for query in range(1, queries):
        expected = max(round((published_share(query, queries) * 32 * 32) ** 0.5), 1)
        assert side(query, queries, 32, 32) == expected


def test_squares_fit_into_the_image():
    assert side(1, 10_000, 4, 100) == 4
    assert side(9_999, 10_000, 4, 100) == 1


def test_the_optimum_is_reached_where_it_has_one_colour():
    images, eps_255 = interior(size=3), 6
    labels = by_colour(images).argmax(1)
    result = square(by_colour, images, labels, LinfBudget(eps_255, steps=600), keys=KEYS)
    signs = torch.where(labels == 1, -1.0, 1.0)[:, None].double() * torch.tensor([1, -1, 1])
    best = images + eps_255 / 255 * signs[:, :, None, None]
    reachable = by_colour(best).argmax(1) != labels
    assert 0 < int(reachable.sum()) < COUNT
    assert torch.equal(result.fooled, reachable)
    torch.testing.assert_close(result.images[~reachable], best[~reachable], atol=1e-12, rtol=0)


def test_a_random_affine_classifier_is_fooled_at_a_large_radius_and_never_below_its_own():
    net, images = oracles.Affine(192, torch.float64), interior()
    labels = net(images).argmax(1)
    radii = 255 * net(images)[:, 1].abs() / net.direction.abs().sum()
    for eps_255 in (3, 20):
        fooled = square(net, images, labels, LinfBudget(eps_255, steps=300), keys=KEYS).fooled
        assert not fooled[radii > eps_255].any()
        assert fooled[3 * radii < eps_255].all()
        assert (3 * radii < eps_255).any()


def test_the_model_need_not_be_differentiable():
    net, images = oracles.small_net(), oracles.bytes_images(COUNT)

    def quantised(x):
        return (net(torch.round(31 * x) / 31) * 8).round()

    labels = quantised(images).argmax(1)
    result = square(quantised, images, labels, LinfBudget(32, steps=300), keys=KEYS)
    assert result.fooled.double().mean() > 0.5
    assert torch.equal(result.fooled, quantised(result.images).argmax(1) != labels)
    assert (result.gradient_calls, int(result.bad_gradients.sum())) == (0, 0)


def test_an_image_is_attacked_alone_as_in_any_batch(generator):
    net, images = oracles.small_net(torch.float64), oracles.bytes_images(COUNT, dtype=torch.float64)
    labels, budget, keys = net(images).argmax(1), LinfBudget(10, steps=60), KEYS + 1000

    def one_by_one(x):  # without what kernels do to the last bit when the batch has another size
        return torch.cat([net(image[None]) for image in x])

    whole = square(one_by_one, images, labels, budget, keys=keys, seed=4)
    assert 0 < int(whole.fooled.sum()) < COUNT
    order = torch.randperm(COUNT, generator=generator)
    shuffled = square(one_by_one, images[order], labels[order], budget, keys=keys[order], seed=4)
    assert torch.equal(shuffled.images, whole.images[order])
    for i in range(COUNT):
        alone = square(net, images[i : i + 1], labels[i : i + 1], budget, keys=keys[i : i + 1], seed=4)
        assert torch.equal(alone.images[0], whole.images[i])


def test_other_seeds_keys_and_radii_give_other_squares():
    images, labels = interior(), torch.zeros(COUNT, dtype=torch.int64)

    def directions(eps_255, seed, keys):
        model = Recorded(certain)
        square(model, images, labels, LinfBudget(eps_255, steps=20), keys=keys, seed=seed)
        return (torch.stack(model.asked[:-1]) - images).sign().flatten()

    first = directions(8, 0, KEYS)
    assert torch.equal(first, directions(8, 0, KEYS))
    for other in (directions(9, 0, KEYS), directions(8, 1, KEYS), directions(8, 0, KEYS + 30)):
        assert abs(float(torch.corrcoef(torch.stack([first, other]))[0, 1])) < 0.2


@settings(max_examples=20)
@given(
    pixels=hnp.arrays("float32", (2, 3, 2, 4), elements=st.floats(0, 1, width=32)),
    eps_255=st.integers(0, 255),
    steps=st.integers(0, 9),
)
def test_radius_and_range_are_never_exceeded(pixels, eps_255, steps):
    images = torch.from_numpy(pixels)
    budget = LinfBudget(eps_255, steps=steps)
    adversarial = square(oracles.Affine(24), images, torch.tensor([0, 1]), budget, keys=KEYS[:2]).images
    assert float((adversarial - images).abs().max()) <= eps_255 / 255 + 2e-7
    assert float(adversarial.min()) >= 0
    assert float(adversarial.max()) <= 1


def test_the_model_is_untouched():
    net, images = oracles.small_net(), oracles.bytes_images(COUNT)
    labels, before, kept = net(images).argmax(1), copy.deepcopy(net.state_dict()), images.clone()
    square(net, images, labels, LinfBudget(8, steps=20), keys=KEYS)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in net.parameters())
    assert not net.training
    assert torch.equal(images, kept)


def test_a_fooled_image_stays_and_a_fooled_batch_asks_no_more():
    net, images = oracles.small_net(torch.float64), oracles.bytes_images(COUNT, dtype=torch.float64)
    labels = net(images).argmax(1)
    model = Recorded(net)
    result = square(model, images, labels, LinfBudget(10, steps=100), keys=KEYS)
    assert 0 < int(result.fooled.sum()) < COUNT
    for i in result.fooled.nonzero()[:, 0].tolist():
        wrong = [int(net(asked[i : i + 1]).argmax()) != labels[i] for asked in model.asked]
        first = wrong.index(True)
        assert all(wrong[first:])
        assert all(torch.equal(asked[i], result.images[i]) for asked in model.asked[first:])
    model = Recorded(net)
    assert square(model, images, (labels + 1) % 3, LinfBudget(1, steps=500), keys=KEYS).fooled.all()
    assert len(model.asked) == 2


def test_failed_logits_are_never_robust():
    net, images = oracles.small_net(), oracles.bytes_images(COUNT)
    labels, bad = net(images).argmax(1), (KEYS < 4)[:, None]
    result = square(lambda x: torch.where(bad, torch.nan, net(x)), images, labels, LinfBudget(1, steps=3), keys=KEYS)
    assert result.predictions[:4].tolist() == [-1] * 4
    assert result.fooled[:4].all()


def test_a_failure_is_kept_like_any_other_success():
    # an image of stripes is classified, one with a square is not
    def fails_on_squares(x):
        return torch.where((x != x[:, :, :1]).flatten(1).any(1, keepdim=True), torch.nan, certain(x))

    images = torch.full((COUNT, 3, 8, 8), 0.5)
    result = square(fails_on_squares, images, torch.zeros_like(KEYS), LinfBudget(4, steps=9), keys=KEYS)
    assert result.predictions.tolist() == [-1] * COUNT


def test_mistakes_are_refused():
    net, images, labels = oracles.small_net(), oracles.bytes_images(2), torch.tensor([0, 1])
    with pytest.raises(InputError, match="must lie in"):
        square(net, 2 * images, labels, LinfBudget(2, steps=2), keys=torch.arange(2))


def wide_net():
    """A convolutional classifier of five classes of images of 17 x 17 pixels."""
    torch.manual_seed(5)
    net = nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.Tanh(), nn.Conv2d(6, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(216, 5))
    with torch.no_grad():
        net[0].weight *= 2
        net[0].bias.copy_(-net[0].weight.sum((1, 2, 3)) / 2)  # grey is zero
        net[2].bias.zero_()
        net[5].bias.zero_()
    return net.eval()


@pytest.mark.parity
def test_the_authors_code_leaves_the_same_accuracy():
    # in small images it leaves more, because its squares never reach the last row and column
    theirs = pytest.importorskip("pyautoattack.square")
    net, images = wide_net(), oracles.bytes_images(200, 17)
    labels, keys, eps_255, queries = net(images).argmax(1), torch.arange(200), 5, 200
    ours, expected = [], []
    for seed in range(2):
        attack = theirs.SquareAttack(net, n_queries=queries, eps=eps_255 / 255, seed=seed, device="cpu")
        adversarial = attack.perturb(images.clone(), labels.clone())
        expected.append(float((net(adversarial).argmax(1) == labels).double().mean()))
        result = square(net, images, labels, LinfBudget(eps_255, steps=queries), keys=keys, seed=seed)
        ours.append(1 - float(result.fooled.double().mean()))
    assert 0.3 < sum(expected) / 2 < 0.6
    assert sum(ours) / 2 == pytest.approx(sum(expected) / 2, abs=0.03)
