"""Auto-PGD against the code of its authors: it leaves a trained classifier the same accuracy."""

from functools import partial

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from nodestill.attacks import LinfBudget
from nodestill.attacks.apgd import apgd, apgd_targeted
from nodestill.attacks.losses import dlr


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
