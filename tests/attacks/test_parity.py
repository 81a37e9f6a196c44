"""Against foolbox: PGD agrees; its MI-FGSM is another algorithm, and the test says which."""

import pytest
import torch

from attacks import oracles
from nodestill.attacks import mi_fgsm, paper_budget, pgd

pytestmark = [
    pytest.mark.parity,
    # foolbox imports SciPy by its old names
    pytest.mark.filterwarnings("ignore:Please import .* from the `scipy:DeprecationWarning"),
]
LABELS = torch.tensor([0, 1, 2, 1, 0, 2])


@pytest.fixture
def foolbox():
    return pytest.importorskip("foolbox")


@pytest.fixture
def case():
    return oracles.small_net(torch.float64), oracles.bytes_images(6, dtype=torch.float64)


def run(foolbox, attack, net, images, eps_255):
    model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
    return attack(model, images, LABELS, epsilons=eps_255 / 255)[1]


@pytest.mark.parametrize("eps_255", [1, 4, 12])
def test_pgd_agrees(foolbox, case, eps_255):
    net, images = case
    budget = paper_budget(eps_255)
    theirs = foolbox.attacks.LinfPGD(abs_stepsize=1 / 255, steps=budget.steps, random_start=False)
    ours = pgd(net, images, LABELS, budget, keys=torch.arange(6), random_start=False)
    torch.testing.assert_close(ours.images, run(foolbox, theirs, net, images, eps_255), atol=1e-12, rtol=0)


def test_their_mi_fgsm_accumulates_signs_instead_of_normalised_gradients(foolbox, case):
    net, images = case
    budget = paper_budget(12)
    attack = foolbox.attacks.LinfMomentumIterativeFastGradientMethod(
        momentum=1.0, abs_stepsize=1 / 255, steps=budget.steps, random_start=False
    )
    theirs = run(foolbox, attack, net, images, 12)

    x, velocity = images, torch.zeros_like(images)
    for _ in range(budget.steps):
        slopes = torch.stack([oracles.gradient(net, image, label) for image, label in zip(x, LABELS)])
        velocity = velocity + slopes.sign()  # Dong et al., eq. 6, adds slopes / ||slopes||_1 here
        x = oracles.clip(x + velocity.sign() / 255, images, 12 / 255)
    torch.testing.assert_close(theirs, x, atol=1e-12, rtol=0)

    ours = mi_fgsm(net, images, LABELS, budget).images
    differing = ((ours - theirs).abs() > 0.5 / 255).double().mean()
    assert float(differing) > 0.001
