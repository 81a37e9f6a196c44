"""f(t, y) against a plain stack that concatenates the time."""

import pytest
import torch
import torch.nn.functional as F

from nodestill.errors import InputError
from nodestill.models import Activation, ConvDynamics, Norm
from nodestill.ode import Method, Solver, solve

ACTIVATIONS = {Activation.RELU: F.relu, Activation.SOFTPLUS: F.softplus, Activation.TANH: torch.tanh}


def build(norm=Norm.GROUP, activation=Activation.RELU, **settings):
    return ConvDynamics(4, norm=norm, activation=activation, **{"layers": 3, "t1": 10.0, **settings})


def plain(f, t, y):
    """The same function as everyone writes it."""
    x, layers = ACTIVATIONS[f.activation](y) if f.pre_activation else y, len(f.convs)
    for i, conv in enumerate(f.convs):
        joined = torch.cat([x, (t / f.t1).expand(y.shape[0], 1, *y.shape[2:])], 1)
        weight = torch.cat([conv.weight, f.time_kernels[i].unsqueeze(1)], 1)
        x = F.conv2d(joined, weight, conv.bias, padding=1)
        if f.norms:
            x = F.group_norm(x, f.norms[i].num_groups, f.norms[i].weight, f.norms[i].bias)
        x = ACTIVATIONS[f.activation](x) if i < layers - 1 else x
    return x


@pytest.fixture
def t_and_y(generator):
    t = 10 * torch.rand((3, 1, 1, 1), generator=generator, dtype=torch.float64)
    return t, torch.randn((3, 4, 6, 5), generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("norm", Norm)
@pytest.mark.parametrize("activation", Activation)
@pytest.mark.parametrize("pre_activation", [False, True])
def test_equals_the_plain_stack_in_value_and_gradient(norm, activation, pre_activation, t_and_y, generator):
    f = build(norm, activation, pre_activation=pre_activation).double()
    with torch.no_grad():  # leave the initial biases and scales
        for parameter in f.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    t, y = (part.clone().requires_grad_() for part in t_and_y)
    got, expected = f(t, y), plain(f, t, y)
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)
    inputs, direction = [t, y, *f.parameters()], torch.randn_like(y)
    for ours, theirs in zip(
        torch.autograd.grad(got, inputs, direction), torch.autograd.grad(expected, inputs, direction), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("norm", Norm)
def test_under_autocast_the_dtype_is_kept_and_the_values_are_near(norm, t_and_y):
    f, (t, y) = build(norm), t_and_y
    exact = f(t, y.float())
    with torch.autocast("cpu", torch.bfloat16):
        rough = f(t, y.float())
    assert rough.dtype == torch.float32
    assert (rough - exact).norm() < 0.02 * exact.norm()
    assert not torch.equal(rough, exact)


def test_one_time_for_all(t_and_y):
    f, (_, y) = build(), t_and_y
    one = torch.full((1, 1, 1, 1), 3.0)
    assert torch.equal(f(one, y.float()), f(one.expand(3, 1, 1, 1), y.float()))


def test_without_a_horizon_time_is_zero(t_and_y):
    f, (t, y) = build(t1=0.0), t_and_y
    assert torch.equal(f(t, y.float()), f(torch.zeros_like(t), y.float()))


@pytest.mark.parametrize("norm", Norm)
def test_zero_last_starts_as_zero_and_can_learn(norm, t_and_y):
    f, (t, y) = build(norm, zero_last=True), t_and_y
    dy = f(t, y.float())
    assert dy.abs().max() == 0
    dy.square().add(dy).sum().backward()
    last = f.norms[-1].weight if norm is Norm.GROUP else f.convs[-1].weight
    assert last.grad.abs().max() > 0


def test_gradients_not_asked_for_are_not_formed(t_and_y):
    f, (t, y) = build().requires_grad_(False), t_and_y
    y = y.float().requires_grad_()
    f(t, y).sum().backward()
    assert y.grad is not None
    assert all(parameter.grad is None for parameter in f.parameters())


def test_initial_weights_have_the_variance_of_he():
    f = ConvDynamics(64, norm=Norm.NONE, activation=Activation.RELU, t1=1.0)
    expected = (2 / (9 * 65)) ** 0.5
    for weight in [f.time_kernels, *(conv.weight for conv in f.convs)]:
        assert abs(weight.std().item() / expected - 1) < 0.05


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"layers": 0}, "layers"), ({"t1": -1.0}, "t1"), ({"t1": float("inf")}, "t1"), ({"scale": float("nan")}, "scale")],
)
def test_bad_settings(settings, message):
    with pytest.raises(InputError, match=message):
        build(**settings)


def test_f_times_a_horizon_on_the_unit_interval_is_f_on_the_horizon(generator):
    """y' = f(t, y) on [0, T] and y' = T f(T t, y) on [0, 1] take the same steps: time enters as t / t1 in both."""
    y0 = torch.randn((3, 4, 6, 5), generator=generator, dtype=torch.float64)
    far, scaled = (build(t1=t1, scale=scale).double() for t1, scale in ((10.0, 1.0), (1.0, 10.0)))
    scaled.load_state_dict(far.state_dict())
    solver = Solver(Method.RK4, steps=5)
    one, other = (solve(f, y0, 0.0, f.t1, solver).y1 for f in (far, scaled))
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(one, y0)


def test_a_scale_of_one_is_nothing(t_and_y):
    f, same = build().double(), build(scale=1.0).double()
    same.load_state_dict(f.state_dict())
    assert torch.equal(f(*t_and_y), same(*t_and_y))
