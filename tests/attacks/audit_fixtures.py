"""Models with known truth: an honest one that passes every check, and one for each defect that an audit must catch by name."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from attacks.oracles import Affine
from nodestill.attacks import Subject, pgd
from nodestill.attacks.budget import LinfBudget
from nodestill.attacks.losses import cross_entropy
from nodestill.data import ImageSet

SIZE = 6
PIXELS = 3 * SIZE * SIZE


def images(count: int = 512) -> ImageSet:
    """Random pictures of grey tones, labelled as the affine model does, one in ten wrongly."""
    generator = torch.Generator().manual_seed(5)
    pixels = torch.randint(80, 176, (count, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    labels = Affine(PIXELS)(pixels.float() / 255).argmax(1)
    wrong = torch.rand(count, generator=generator) < 0.1
    return ImageSet("grey", "made up", pixels, torch.where(wrong, 1 - labels, labels), ("below", "above"))


class Sharp(nn.Module):
    """The affine model at a scale at which its cross-entropy is neither flat nor saturated."""

    def __init__(self, scale: float = 30.0) -> None:
        super().__init__()
        self.scale, self.affine = scale, Affine(PIXELS)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.scale * self.affine(pictures)


def honest(model: nn.Module | None = None) -> Subject:
    model = (model or Sharp()).eval().requires_grad_(False)
    return Subject(
        model,
        {"float64": lambda x: model(x.double()), "tight": lambda x: model(x)},
        batch_independent=True,
        reference=lambda clean: lambda x: model(x.double()),
        horizon_rescaled=model,
        evaluations=lambda x: torch.full((len(x),), 7),
        max_steps=100,
        module=model,
    )


def changed(change: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]) -> Subject:
    """Return the honest subject with its logits computed otherwise, in every path alike."""
    logits = lambda x: change(Sharp().eval(), x)  # noqa: E731
    return honest()._replace(logits=logits, gradient_paths={}, reference=None, horizon_rescaled=None)


def saturated() -> Subject:
    return changed(lambda model, x: 1e5 * model(x))


def quantised() -> Subject:
    return changed(lambda model, x: model((x * 15).round() / 15))


def noisy() -> Subject:
    return changed(lambda model, x: model(x + 0.05 * torch.rand_like(x)))


def batch_coupled() -> Subject:
    return changed(lambda model, x: model(x - 2.0 * (x.mean() - 0.5)))


def not_a_number() -> Subject:
    """Some inputs, those with a bright first pixel, have no logits."""
    return changed(lambda model, x: torch.where(x[:, 0, 0, :1] > 0.6, torch.nan, model(x)))


def constant() -> Subject:
    return changed(lambda model, x: model(x) * 1e-3 + torch.tensor([0.0, 9.0]))


def probabilities() -> Subject:
    return changed(lambda model, x: model(x).softmax(1))


def detached_stem() -> Subject:
    return changed(lambda model, x: model(x.detach()))


def gives_up() -> Subject:
    """A solver that gives up on images of much contrast, whose model then answers with its last class."""

    def logits(model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        hard = x.flatten(1).std(1, keepdim=True) > 0.106
        return torch.where(hard, torch.tensor([-5.0, 5.0]), model(x))

    return changed(logits)


def left_in_training() -> Subject:
    model = nn.Sequential(Sharp(), nn.Dropout(0.0)).train().requires_grad_(False)
    return honest()._replace(logits=model, module=model)


def in_normalised_units(logits_fn, batch, budget, seed):
    """A native attack whose radius was meant in units of the deviation: a quarter of what it claims."""
    quarter = LinfBudget(max(1, budget.eps_255 // 4), 1, budget.steps)
    return pgd(logits_fn, batch.images, batch.labels, quarter, keys=batch.index, seed=seed)


def downhill(logits_fn, batch, budget, seed):
    """A native attack with the wrong sign."""
    away = lambda logits, labels: -cross_entropy(logits, labels)  # noqa: E731
    return pgd(logits_fn, batch.images, batch.labels, budget, keys=batch.index, seed=seed, loss=away)
