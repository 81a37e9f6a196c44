"""The attack inside a training: what it finds, along which steps, from which starts, and that it leaves no trace."""

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tiny
from attacks import oracles
from nodestill.attacks import LinfBudget, pgd
from nodestill.attacks.random_start import keyed_uniform
from nodestill.data import Augment, Batch, train_batches
from nodestill.data.keyed import Stream, keyed_bits
from nodestill.experiments.inner_attack import inner_attack
from nodestill.experiments.members import build_model
from nodestill.models import NeuralODEClassifier
from nodestill.ode import Method, Solver, StepRecord
from nodestill.training.robust_objectives import adversarially_supervised, divergence

BUDGET = LinfBudget(8, step_255=3, steps=4)


def batches(epoch: int = 0, size: int = 12, count: int = 24) -> list[Batch]:
    return list(train_batches(tiny.images(count), size, Augment(crop_padding=1), seed=1, epoch=epoch))


def shown(epoch: int = 0) -> Batch:
    return batches(epoch)[0]


def node(solver: Solver | None = None, t1: float = 1.0, **changes) -> NeuralODEClassifier:
    settings = replace(tiny.student(tiny.SGD, None, t1).model, solver=solver or Solver(), **changes)
    return build_model(settings, 0, 3)


def resnet() -> nn.Module:
    return build_model(tiny.teacher(tiny.SGD, width=2).model, 0, 3)


MODELS = {
    "adaptive": node,
    "several": lambda: node(further=(6,)),
    "fixed": lambda: node(Solver(Method.MIDPOINT, steps=2)),
    "stem": lambda: node(t1=0.0),
    "twin": lambda: build_model(
        replace(tiny.student(tiny.SGD, None).model, solver=Solver(Method.EULER, steps=2), twin=True), 0, 3
    ),
    "resnet": resnet,
}
EACH = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())


def entropy(batch: Batch) -> Callable[[Tensor], Tensor]:
    return lambda logits: F.cross_entropy(logits, batch.labels, reduction="none")


def perturbed(model: nn.Module, batch: Batch, budget: LinfBudget = BUDGET, seed: int = 0) -> Tensor:
    return inner_attack(model, budget, seed)(batch, entropy(batch))


@EACH
@pytest.mark.parametrize("budget", [BUDGET, LinfBudget(255, 60, 2), LinfBudget(2, 1, 1)])
def test_images_stay_within_radius_and_range_and_have_no_gradient(make, budget):
    batch = shown()
    images = perturbed(make(), batch, budget)
    assert float((images - batch.images).abs().max()) <= budget.eps + 1e-6
    assert float((images - batch.images).abs().max()) > 0.5 * budget.eps
    assert float(images.min()) >= 0
    assert float(images.max()) <= 1
    assert not images.requires_grad
    assert images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("make", [resnet, MODELS["fixed"]])
def test_it_is_the_plain_attack_on_the_model_in_evaluation_mode(make):
    """In float64, where signs are not a matter of rounding; started at the keyed numbers."""
    model, batch, seed = make().double(), shown(epoch=3), 5
    batch = batch._replace(images=batch.images.double())
    keys = keyed_bits(seed, Stream.ATTACK, batch.index, batch.view)
    starts = BUDGET.eps * keyed_uniform(keys, seed, BUDGET.eps_255, 192).view(-1, 3, 8, 8).double()
    starts = torch.stack([oracles.clip(image + start, image, BUDGET.eps) for image, start in zip(batch.images, starts)])
    plain = copy.deepcopy(model).eval()
    expected = oracles.pgd(plain, batch.images, batch.labels, BUDGET.eps_255, BUDGET.step_255, BUDGET.steps, starts)
    assert model.training
    torch.testing.assert_close(perturbed(model, batch, seed=seed), expected, rtol=0, atol=1e-12)


def test_starts_belong_to_seed_image_and_epoch_and_to_nothing_else():
    model, still = resnet(), LinfBudget(200, 1, 1)  # one small step: where it started is where it ends, about
    first, again = (perturbed(model, shown(), still) for _ in range(2))
    assert torch.equal(first, again)
    one = shown()
    later = one._replace(view=one.view + 1)  # the same pixels in another epoch
    assert far(perturbed(model, later, still), first)
    assert far(perturbed(model, one, still, seed=1), first)
    assert far(perturbed(model, one._replace(index=one.index + 100), still), first)
    alone = torch.cat([perturbed(model, Batch(*[part[i : i + 1] for part in one]), still) for i in range(12)])
    assert not far(alone, first)
    shuffled = torch.randperm(12)
    assert not far(perturbed(model, Batch(*[part[shuffled] for part in one]), still), first[shuffled])


def far(one: Tensor, other: Tensor) -> bool:
    return float((one - other).abs().flatten(1).max(1).values.min()) > 0.1


@EACH
def test_the_attack_leaves_no_trace_on_the_model(make):
    model, batch = make(), shown()
    odd = next(module for module in model.modules() if not list(module.children()))
    odd.eval()  # a layer that its owner keeps in evaluation mode
    modes = [module.training for module in model.modules()]
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, 7.0) if number % 2 else None
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    before, kept = copy.deepcopy(model.state_dict()), batch.images.clone()
    perturbed(model, batch)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())  # BatchNorm's buffers too
    assert [parameter.requires_grad for parameter in model.parameters()] == wanted
    for number, parameter in enumerate(model.parameters()):
        assert parameter.grad is None if number % 2 == 0 else bool((parameter.grad == 7).all())
    assert torch.equal(batch.images, kept)
    assert not batch.images.requires_grad


def test_the_mode_comes_back_after_a_failure():
    model = resnet()

    def fails(logits: Tensor) -> Tensor:
        raise ArithmeticError("by the test")

    with pytest.raises(ArithmeticError):
        inner_attack(model, BUDGET, 0)(shown(), fails)
    assert all(module.training for module in model.modules())


def test_the_model_is_in_evaluation_mode_during_the_attack():
    model, modes = resnet(), []
    model.register_forward_pre_hook(lambda module, _: modes.append({part.training for part in module.modules()}))
    perturbed(model, shown())
    assert modes == [{False}] * (BUDGET.steps + 1)  # the last call classifies what was found


# Replay


@pytest.fixture
def replays(monkeypatch):
    """Records what each prediction was told to replay, and whether a gradient was wanted."""
    seen, plain = [], NeuralODEClassifier.predict

    def predict(self, images, *, replay=(), raises=True):
        seen.append((replay, images.requires_grad))
        return plain(self, images, replay=replay, raises=raises)

    monkeypatch.setattr(NeuralODEClassifier, "predict", predict)
    return seen


@pytest.mark.parametrize(("make", "equations"), [(node, 1), (lambda: node(further=(6, 5)), 3)])
def test_adaptive_steps_are_recorded_once_on_the_clean_batch_and_replayed(replays, make, equations):
    model, batch = make(), shown()
    expected = model.eval().predict(batch.images).steps
    replays.clear()
    perturbed(model.train(), batch)
    (first, grad), *others = replays
    assert (first, grad) == ((), False)
    assert [wanted for _, wanted in others] == [True] * BUDGET.steps + [False]
    for replay, _ in others:
        assert len(replay) == equations
        assert all(isinstance(record, StepRecord) for record in replay)
        assert all(torch.equal(a.sizes, b.sizes) for a, b in zip(replay, expected, strict=True))


@pytest.mark.parametrize("name", ["fixed", "stem"])
def test_where_no_step_is_chosen_none_is_recorded(replays, name):
    perturbed(MODELS[name](), shown())
    assert [replay for replay, _ in replays] == [()] * (BUDGET.steps + 1)


def test_a_replayed_gradient_leads_where_the_solvers_own_does():
    model, batch = node(Solver(rtol=1e-4, atol=1e-4)).eval(), shown()
    keys = keyed_bits(0, Stream.ATTACK, batch.index, batch.view)
    native = pgd(model, batch.images, batch.labels, BUDGET, keys=keys).images
    assert float((perturbed(model, batch) == native).float().mean()) > 0.95


def test_a_failed_solve_stops_nothing_and_its_image_stays_at_its_start():
    model, batch = node(Solver(max_steps=1, rtol=1e-9, atol=1e-9)), shown()
    still = perturbed(model, batch, replace(BUDGET, steps=0))
    assert torch.equal(perturbed(model, batch), still)


# What it is good for


def grown(raised: Callable[[Tensor], Tensor], model: nn.Module, images: Tensor, than: Tensor) -> float:
    with torch.no_grad():
        return float((raised(model(images)) > raised(model(than))).float().mean())


@EACH
def test_the_distance_to_the_teacher_grows(make):
    """From a random start, and from the clean image: what RSLAD is trained on is harder than either."""
    model, teacher, batch = make().eval(), resnet().eval(), shown()
    with torch.no_grad():
        targets = 3 * teacher(batch.images)

    def raised(logits: Tensor) -> Tensor:
        return divergence(logits, targets, 1.0)

    attack = inner_attack(model, BUDGET, 0)
    images, start = attack(batch, raised), inner_attack(model, replace(BUDGET, steps=0), 0)(batch, raised)
    assert grown(raised, model, images, start) == 1
    assert grown(raised, model, images, batch.images) == 1
    fewer = inner_attack(model, replace(BUDGET, steps=1), 0)(batch, raised)
    assert grown(raised, model, images, fewer) >= 0.9


@EACH
def test_weights_learn_after_an_attack_in_bfloat16(make):
    """Autocast keeps converted weights. Those of an attack, made without a gradient, are not to learn with (older torch)."""
    model, batch = make().train(), shown()
    objective = adversarially_supervised(model, inner_attack(model, BUDGET, 0))
    with torch.autocast("cpu", torch.bfloat16):
        loss = objective(batch)
    loss.total.backward()
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert reached == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
