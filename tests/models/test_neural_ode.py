"""The student: what it shares, what it reports, and what happens when a solve fails."""

import pytest
import torch
from torch import nn

from nodestill.errors import InputError, SolveError
from nodestill.models import (
    Activation,
    ConvDynamics,
    NeuralODEClassifier,
    Norm,
    Normalize,
    Pooling,
    Stem,
    classification_head,
    node_classifier,
    stem,
)
from nodestill.ode import GradientMode, Method, Solver, Status
from nodestill.precision import Precision


def build(*, channels=8, norm=Norm.GROUP, activation=Activation.RELU, t1=1.0, solver=None, kind=Stem.FLAT, **settings):
    dynamics = ConvDynamics(channels, layers=2, norm=norm, activation=activation, t1=t1)
    return node_classifier(kind, [dynamics], solver=solver or Solver(), **{"num_classes": 10, **settings})


@pytest.fixture
def images(generator):
    return torch.rand((4, 3, 8, 8), generator=generator)


class Decay(nn.Module):
    """dy/dt = -y, which has a solution to compare with."""

    def forward(self, t, y):
        return -y


class FirstImageExplodes(nn.Module):
    """dy/dt = y² where y is large, 0 elsewhere."""

    def forward(self, t, y):
        return torch.where(y > 10, y**2, torch.zeros_like(y))


def closed_form(solver, t1=2.0):
    return NeuralODEClassifier(Normalize((0.0,) * 3, (0.5,) * 3), Decay(), classification_head(3, 5), t1=t1, solver=solver)


def test_solves_the_equation(images):
    model = closed_form(Solver(rtol=1e-8, atol=1e-8))
    expected = model.head(2 * images * torch.exp(torch.tensor(-2.0)))
    torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "size"), [(Stem.FLAT, 8), (Stem.DOWN4, 32)])
def test_shapes(kind, size):
    model = build(kind=kind, num_classes=7)
    prediction = model.predict(torch.rand(2, 3, size, size))
    assert prediction.logits.shape == (2, 7)
    (solution,) = prediction.solutions
    assert solution.y1.shape == (2, 8, 8, 8)
    assert bool((prediction.evaluations > 0).all())


def test_normalisation_is_the_first_layer(images):
    model, raw = build(mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0)), build()
    kept = {k: v for k, v in model.state_dict().items() if not k.startswith("encoder.0.")}
    assert raw.load_state_dict(kept, strict=False).unexpected_keys == []
    by_hand = (images - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 1.0, 2.0]).view(3, 1, 1)
    torch.testing.assert_close(model.encode(images), raw.encode(by_hand))


def test_state_is_float32_and_channels_last_even_under_autocast(images):
    with torch.autocast("cpu", torch.bfloat16):
        y0 = build().encode(images)
    assert y0.dtype == torch.float32
    assert y0.is_contiguous(memory_format=torch.channels_last)


def test_with_solver_shares_storage_and_leaves_the_original(images):
    model = build()
    before, solver = model(images), model.solver
    tight = model.with_solver(Solver(rtol=1e-7, atol=1e-7))
    ours, theirs = dict(model.named_parameters()), dict(tight.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(ours[name].data_ptr() == theirs[name].data_ptr() for name in ours)
    assert model.solver is solver
    assert torch.equal(model(images), before)
    evaluations = [m.predict(images).evaluations for m in (model, tight)]
    assert bool((evaluations[1] > evaluations[0]).all())


def test_another_horizon_leaves_the_equation_out(images):
    model = build()
    assert torch.equal(model.with_solver(model.solver, t1=0.0)(images), model.head(model.encode(images)))
    assert model.t1 == 1.0


def twice(solver, factor=3.0):
    """y' = -y, then the state times `factor`, then y' = -y again."""

    class Times(nn.Module):
        def forward(self, y):
            return factor * y

    first, head = Normalize((0.0,) * 3, (1.0,) * 3), classification_head(3, 5)
    return NeuralODEClassifier(first, Decay(), head, t1=0.5, solver=solver, further=[(Times(), Decay())])


def test_further_equations_go_on_where_a_transition_leads(images):
    model = twice(Solver(rtol=1e-8, atol=1e-8))
    expected = model.head(3 * images * torch.exp(torch.tensor(-1.0)))
    torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.with_solver(model.solver, t1=0.0)(images), model.head(3 * images))


def test_evaluations_are_those_of_all_equations_and_replay_wants_each(images):
    model = twice(Solver(), factor=-1.0)
    prediction = model.predict(images)
    assert torch.equal(prediction.evaluations, prediction.evaluations_by_equation.sum(1))
    assert prediction.evaluations_by_equation.shape == (4, 2)
    torch.testing.assert_close(model.predict(images, replay=prediction.steps).logits, prediction.logits)
    with pytest.raises(InputError, match="one record per equation, 2, got 1"):
        model.predict(images, replay=prediction.steps[:1])


def test_a_whitened_stem_and_a_further_equation_have_ever_smaller_pictures():
    widths = (6, 8)
    some = [ConvDynamics(c, layers=1, norm=Norm.NONE, activation=Activation.RELU, t1=1.0) for c in widths]
    model = node_classifier(Stem.WHITENED, some, solver=Solver(Method.EULER, steps=1), num_classes=4, pooling=Pooling.MAX)
    prediction = model.predict(torch.rand(2, 3, 32, 32))
    assert [tuple(s.y1.shape[1:]) for s in prediction.solutions] == [(6, 15, 15), (8, 7, 7)]
    assert prediction.logits.shape == (2, 4)


@pytest.mark.parametrize("training", [True, False])
def test_with_solver_keeps_the_mode(training):
    model = build().train(training)
    assert model.with_solver(Solver()).training is training
    assert model.training is training


def test_without_a_horizon_only_encoder_and_head_are_left(images):
    model = build(t1=0.0)
    logits, (solution,) = model.predict(images)
    torch.testing.assert_close(logits, model.head(model.encoder(images)))
    assert all(int(count.sum()) == 0 for count in solution.stats)
    assert bool((solution.status == Status.DONE).all())
    assert solution.steps.sizes.shape == (0, 4)


def test_a_failed_image_is_nan_and_its_neighbours_are_not(images):
    encoder = Normalize((0.0,) * 3, (1.0,) * 3)
    model = NeuralODEClassifier(encoder, FirstImageExplodes(), classification_head(3, 5), t1=1.0, solver=Solver())
    images = images.clone()
    images[0] = 20.0  # reaches infinity at t = 1/20
    logits, (solution,) = model.predict(images, raises=False)
    assert bool(logits[0].isnan().all())
    assert solution.status[0] != Status.DONE
    torch.testing.assert_close(logits[1:], model.head(images[1:]))
    with pytest.raises(SolveError, match="1 of 4"):
        model(images)


@pytest.mark.parametrize("norm", Norm)
def test_an_image_alone_is_as_in_a_batch(images, norm):
    model = build(norm=norm).eval()
    torch.testing.assert_close(model(images[2:3]), model(images)[2:3], rtol=1e-5, atol=1e-5)


def test_replay_takes_the_same_steps(images):
    model = build()
    first = model.predict(images)
    again = model.predict(images, replay=first.steps)
    torch.testing.assert_close(again.logits, first.logits)


@pytest.mark.parametrize("norm", Norm)
@pytest.mark.parametrize("mode", [GradientMode.DIRECT, GradientMode.RECOMPUTE])
def test_the_whole_gradient_is_that_of_finite_differences(images, norm, mode):
    solver = Solver(method=Method.RK4, steps=2, gradient=mode)
    model = build(channels=4, norm=norm, activation=Activation.TANH, solver=solver).double()
    images = images[:2].double().requires_grad_()
    inputs = [images, *model.parameters()]
    gradients = torch.autograd.grad(model(images).square().sum(), inputs)
    directions = [torch.randn_like(part) for part in inputs]
    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
    losses = []
    with torch.no_grad():
        for step in (1e-5, -2e-5):
            for part, direction in zip(inputs, directions, strict=True):
                part.add_(direction, alpha=step)
            losses.append(model(images).square().sum())
    torch.testing.assert_close(slope, (losses[0] - losses[1]) / 2e-5, rtol=1e-5, atol=1e-7)


def test_bfloat16_dynamics_are_near_float32(images):
    model = build(channels=32)
    rough = model.with_solver(Solver(precision=Precision.BFLOAT16))
    exact, near = model(images), rough(images)
    assert near.dtype == torch.float32
    assert (near - exact).norm() < 0.05 * exact.norm()


def test_bad_horizon():
    with pytest.raises(InputError, match="t1"):
        closed_form(Solver(), t1=-1.0)


@pytest.mark.parametrize("horizons", [(), (1.0, 2.0)])
def test_a_student_has_equations_of_one_horizon(horizons):
    some = [ConvDynamics(4, norm=Norm.NONE, activation=Activation.RELU, t1=t1) for t1 in horizons]
    with pytest.raises(InputError, match="all of one t1"):
        node_classifier(Stem.WHITENED, some, solver=Solver(), num_classes=4)


def test_bad_channels():
    with pytest.raises(InputError, match="channels"):
        stem(Stem.DOWN4, 0)
