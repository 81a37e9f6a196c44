"""One stage of a step undoes the rounding of f's weights to bfloat16."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from nodestill.models import Activation, ConvDynamics, Norm
from nodestill.ode import GradientMode, Method, Solver, solve, tableaus
from nodestill.ode.rounding import compensated_weights
from nodestill.precision import Precision

COMPENSATED = [Method.DOPRI5, Method.TSIT5, Method.BOSH3, Method.RK4]


class Layer(nn.Linear):
    def forward(self, t, y):
        return -super().forward(y)


class Tied(nn.Module):
    """Two layers of one weight, and a parameter that belongs to no layer."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, t, y):
        return -self.scale * self.second(torch.tanh(self.first(y)))


def rounded(x):
    return x.to(torch.bfloat16).double()


@pytest.mark.parametrize("method", COMPENSATED)
def test_a_step_sees_weights_that_are_wrong_by_a_share_of_one_rounding(method):
    table = tableaus.tableau(method)
    stage = table.compensating
    share = table.share_to_compensate(stage)
    assert stage > 0
    assert share == float(table.b[stage])
    assert table.without_error.share_to_compensate(stage) == share
    weight = torch.randn(4_000, dtype=torch.float64).float().double()
    f = nn.Linear(4_000, 1)
    with torch.no_grad():
        f.weight.copy_(weight[None])
    moved = compensated_weights(f, share)["weight"][0]
    mean = (1 - share) * rounded(weight) + share * rounded(moved)
    bound = share * 2**-8 * moved.abs().double()
    assert ((mean - weight).abs() <= bound * (1 + 1e-3) + 1e-9).all()
    assert ((rounded(weight) - weight).abs() > bound).any()


@pytest.mark.parametrize("method", [m for m in Method if m not in COMPENSATED])
def test_methods_without_a_fit_stage_leave_the_weights(method):
    table = tableaus.tableau(method)
    assert [table.share_to_compensate(i) for i in range(table.stages)] == [None] * table.stages


@pytest.mark.parametrize("method", COMPENSATED)
def test_the_error_of_bfloat16_shrinks(method, monkeypatch):
    torch.manual_seed(0)
    f = ConvDynamics(16, norm=Norm.GROUP, activation=Activation.TANH, t1=1.0)
    y0 = torch.randn(4, 16, 8, 8).to(torch.bfloat16).float()
    given = {} if method.is_adaptive else {"steps": 4}
    full = Solver(method, **given)
    low = replace(full, precision=Precision.BFLOAT16)
    with torch.no_grad():
        exact = solve(f, y0, 0.0, 1.0, full)
        found = solve(f, y0, 0.0, 1.0, low, replay=exact.steps).y1
        plain = replace(tableaus.tableau(method), compensating=None)
        monkeypatch.setitem(tableaus._TABLEAUS, method, plain)
        usual = solve(f, y0, 0.0, 1.0, low, replay=exact.steps).y1
    error, before = ((y1 - exact.y1).norm() / exact.y1.norm() for y1 in (found, usual))
    most = 1.0 if method is Method.TSIT5 else 0.9  # its large weights of both signs magnify what is rounded elsewhere
    assert 0 < error < most * before


@pytest.mark.parametrize("gradient", [GradientMode.DIRECT, GradientMode.RECOMPUTE, GradientMode.ADJOINT])
@pytest.mark.parametrize("f", [Layer(4, 4), Tied()], ids=["a layer", "tied weights"])
def test_the_gradient_of_a_moved_weight_is_that_of_the_weight(f, gradient):
    y0, grads = torch.randn(3, 4), []
    for precision in Precision:
        y1 = solve(f, y0, 0.0, 1.0, Solver(Method.BOSH3, rtol=1e-2, atol=1e-2, gradient=gradient, precision=precision)).y1
        grads.append(torch.autograd.grad(y1.square().sum(), list(f.parameters())))
    for low, full in zip(*reversed(grads), strict=True):
        assert 0 < float((low - full).norm()) < 0.03 * float(full.norm())


def test_only_layers_that_autocast_rounds_for_have_other_weights():
    f = Tied()
    assert set(compensated_weights(f, 0.5)) == {"first.weight", "first.bias", "second.bias"}
    assert compensated_weights(nn.Linear(2, 2).double(), 0.5) == {}


def test_the_weights_themselves_are_left_alone():
    f = Layer(4, 4)
    before = [(p.clone(), p._version) for p in f.parameters()]
    solve(f, torch.randn(2, 4), 0.0, 1.0, Solver(precision=Precision.BFLOAT16))
    assert all(torch.equal(p, old) and p._version == version for p, (old, version) in zip(f.parameters(), before, strict=True))
