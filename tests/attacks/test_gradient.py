"""The gradient that attacks follow: whose it is, what counts as bad, and what attacks refuse."""

import pytest
import torch

from attacks import oracles
from nodestill.attacks import LinfBudget, fgsm, loss_gradient, mi_fgsm, pgd, predictions
from nodestill.errors import InputError

LABELS = torch.tensor([0, 1, 2, 1])


def test_gradient_is_that_of_each_image_alone():
    net, images = oracles.small_net(torch.float64), oracles.bytes_images(4, dtype=torch.float64)
    gradient, bad, *_ = loss_gradient(net, images, LABELS)
    alone = torch.stack([oracles.gradient(net, image, label) for image, label in zip(images, LABELS)])
    torch.testing.assert_close(gradient, alone, atol=1e-12, rtol=1e-9)
    assert not bad.any()


def broken_gradient(slopes):
    """Logits that are finite while the derivative of each image's is the number given."""

    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx, images):
            ctx.shape = images.shape
            return images.flatten(1).mean(1)

        @staticmethod
        def backward(ctx, upstream):
            return slopes.view(-1, 1, 1, 1).expand(ctx.shape) * upstream.view(-1, 1, 1, 1)

    def logits_fn(images):
        mean = Broken.apply(images)
        return torch.stack([mean, -mean, 0 * mean], 1)

    return logits_fn


@pytest.mark.parametrize("attack", ["mi_fgsm", "pgd"])
def test_bad_gradients_are_counted_per_step_and_leave_the_image_where_it_is(attack):
    images = 0.25 + oracles.bytes_images(4) / 2
    logits_fn = broken_gradient(torch.tensor([1.0, 0.0, float("nan"), float("-inf")]))
    budget = LinfBudget(4, steps=3)
    if attack == "pgd":
        result = pgd(logits_fn, images, LABELS, budget, keys=torch.arange(4), random_start=False)
    else:
        result = mi_fgsm(logits_fn, images, LABELS, budget)
    assert result.bad_gradients.tolist() == [0, 3, 3, 3]
    assert torch.equal(result.images[1:], images[1:])
    assert not torch.equal(result.images[0], images[0])


def gives_up(said):
    """Logits whose backward pass fails an assertion."""

    class GivesUp(torch.autograd.Function):
        @staticmethod
        def forward(ctx, images):
            return images.flatten(1)[:, :3].clone()

        @staticmethod
        def backward(ctx, upstream):
            raise AssertionError(said)

    return GivesUp.apply


def test_where_torchdiffeq_gives_up_on_its_way_back_gradients_are_bad():
    images, budget = oracles.bytes_images(4), LinfBudget(8, steps=3)
    result = pgd(gives_up("underflow in dt 0.0"), images, LABELS, budget, keys=torch.arange(4))
    assert result.bad_gradients.tolist() == [3] * 4
    with pytest.raises(AssertionError, match="my own"):
        pgd(gives_up("my own mistake"), images, LABELS, budget, keys=torch.arange(4))


def test_failed_logits_are_no_prediction():
    logits = torch.tensor([[1.0, 0.0], [float("nan"), 0.0], [0.0, float("inf")], [0.0, 1.0]])
    assert predictions(logits).tolist() == [0, -1, -1, 1]


def test_failed_logits_are_never_robust():
    images = oracles.bytes_images(4)

    def logits_fn(x):
        good = torch.tensor([[1.0, 0.0]]) + 0 * x.flatten(1)[:, :2]
        return torch.where(torch.tensor([False, True, True, False])[:, None], torch.nan, good)

    result = fgsm(logits_fn, images, torch.zeros(4, dtype=torch.int64), LinfBudget(1))
    assert result.fooled.tolist() == [False, True, True, False]
    assert result.predictions.tolist() == [0, -1, -1, 0]


def test_normalised_images_are_refused():
    with pytest.raises(InputError, match="must lie in"):
        fgsm(oracles.small_net(), oracles.bytes_images(4) * 2 - 1, LABELS, LinfBudget(8))
    with pytest.raises(InputError, match="float32 or float64"):
        fgsm(oracles.small_net(), oracles.bytes_images(4).half(), LABELS, LinfBudget(8))


def test_missing_labels_are_refused():
    with pytest.raises(InputError, match="labels"):
        fgsm(oracles.small_net(), oracles.bytes_images(4), LABELS - 1, LinfBudget(8))


def test_a_detached_model_is_refused():
    net = oracles.small_net()
    with pytest.raises(InputError, match="differentiably"):
        fgsm(lambda x: net(x).detach(), oracles.bytes_images(4), LABELS, LinfBudget(8))
