"""One stage of a step undoes the rounding of f's weights to bfloat16."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nodestill.models import Activation, ConvDynamics, Norm
from nodestill.ode import GradientMode, Method, Solver, StepControl, adjoint, solve, tableaus
from nodestill.ode.rounding import CompensatingStage, rounded
from nodestill.precision import Precision

COMPENSATED = {Method.DOPRI5: 2, Method.TSIT5: 2, Method.BOSH3: 1, Method.EVEN3: 1, Method.EVEN4: 4, Method.RK4: 3}
# Large weights of both signs, tsit5's, magnify what is rounded elsewhere.
SHRINKS = {Method.DOPRI5: 0.8, Method.TSIT5: 1.0, Method.BOSH3: 0.7, Method.EVEN3: 0.7, Method.EVEN4: 0.7, Method.RK4: 0.8}


class Constant(nn.Module):
    """f(t, y) = bias, by a linear layer without weights: the end state of one step is the mean of the biases of its stages."""

    def __init__(self, by="layer"):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.by = nn.Linear(2, 1_000), by
        nn.init.zeros_(self.layer.weight)
        nn.init.normal_(self.layer.bias)

    def forward(self, t, y):
        two = y[:, :2]
        if self.by == "shielded":
            with torch.autocast("cpu", enabled=False):
                return self.layer(two)
        if self.by == "computed":
            return F.linear(two, 2 * self.layer.weight, 2 * (self.layer.bias / 2))
        return F.linear(input=two, weight=self.layer.weight, bias=self.layer.bias) if self.by == "names" else self.layer(two)


class Listed(nn.Module):
    """A layer that is known by two names, as in `self.first = a; self.all = nn.Sequential(a, ...)`, and is used twice."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(4, 4)
        self.all = nn.Sequential(self.first, nn.Tanh(), self.first)
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, t, y):
        return -self.scale * self.all(y)


def one_step(method, **changes):
    steps = {} if method.is_adaptive else {"steps": 1}
    first = {"first_step": 1.0} if method.is_adaptive else {}
    return Solver(method, precision=Precision.BFLOAT16, **steps, **first, **changes)


def without(monkeypatch, method):
    monkeypatch.setitem(tableaus._TABLEAUS, method, replace(tableaus.tableau(method), compensating=None))


def test_rounding_by_bits_is_that_of_the_conversion():
    ties = torch.tensor([1.0, 1.00390625, 1.01171875, -1.00390625, 0.0, -0.0, 3e38, 1e-40, torch.inf])
    for x in (torch.randn(10_000), ties):
        assert torch.equal(rounded(x), x.to(torch.bfloat16).float())
    assert rounded(torch.tensor([torch.nan])).isnan().all() or rounded(torch.tensor([torch.nan])).isinf().all()


@pytest.mark.parametrize("method", list(Method))
def test_which_stage_compensates(method):
    table = tableaus.tableau(method)
    shares = [table.share_to_compensate(i) for i in range(table.stages)]
    expected = [float(b) if COMPENSATED.get(method) == i else None for i, b in enumerate(table.b)]
    assert shares == expected
    assert [table.without_error.share_to_compensate(i) for i in range(table.solution_stages)] == expected[
        : table.solution_stages
    ]


@pytest.mark.parametrize("way", ["plain", "replayed", "shared", "backwards"])
@pytest.mark.parametrize("by", ["layer", "names", "computed"])
@pytest.mark.parametrize("method", list(COMPENSATED))
def test_a_step_sees_weights_that_are_wrong_by_a_share_of_one_rounding(method, by, way, monkeypatch):
    f, y0 = Constant(by), torch.zeros(3, 1_000)
    solver = one_step(method, step_control=StepControl.SHARED if way == "shared" else StepControl.PER_IMAGE)
    t1 = -1.0 if way == "backwards" else 1.0

    def change():
        with torch.no_grad():
            found = solve(f, y0, 0.0, t1, solver)
            if way == "replayed":
                found = solve(f, y0, 0.0, t1, solver, replay=found.steps)
        assert found.stats.accepted.tolist() == [1, 1, 1]
        return t1 * found.y1[0].double()

    share, bias = float(tableaus.tableau(method).b[COMPENSATED[method]]), f.layer.bias.detach().double()
    bound = share * 2.0**-8 * bias.abs() * (1 + 2.0**-8 / share) + 1e-6  # a moved weight may be a little larger
    assert ((change() - bias).abs() <= bound).all()
    without(monkeypatch, method)
    assert ((change() - bias).abs() > bound).any()


def test_what_is_shielded_from_autocast_stays_exact():
    f, y0 = Constant("shielded"), torch.zeros(1, 1_000)
    with torch.no_grad():
        y1 = solve(f, y0, 0.0, 1.0, one_step(Method.BOSH3)).y1
    torch.testing.assert_close(y1[0], f.layer.bias.detach(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", list(COMPENSATED))
def test_the_error_of_bfloat16_shrinks(method, monkeypatch):
    torch.manual_seed(0)
    f = ConvDynamics(16, norm=Norm.GROUP, activation=Activation.TANH, t1=1.0)
    y0 = torch.randn(8, 16, 8, 8).to(torch.bfloat16).float()
    full = Solver(method, **({} if method.is_adaptive else {"steps": 4}))
    low = replace(full, precision=Precision.BFLOAT16)
    with torch.no_grad():
        exact = solve(f, y0, 0.0, 1.0, full)
        found = solve(f, y0, 0.0, 1.0, low)
        without(monkeypatch, method)
        usual = solve(f, y0, 0.0, 1.0, low)
    error, before = (float((each.y1 - exact.y1).norm()) for each in (found, usual))
    assert 0 < error < SHRINKS[method] * before
    assert float(found.stats.evaluations.double().mean()) <= 1.1 * float(usual.stats.evaluations.double().mean())


@pytest.mark.parametrize("method", list(COMPENSATED))
@pytest.mark.parametrize("kept_bytes", [0, 2**30])
def test_steps_made_again_have_the_same_weights(method, kept_bytes):
    torch.manual_seed(0)
    f, y0 = Listed(), torch.randn(3, 4)
    found = []
    for gradient in (GradientMode.DIRECT, GradientMode.RECOMPUTE):
        steps = {"steps": 8} if not method.is_adaptive else {"rtol": 1e-4, "atol": 1e-4}
        solver = Solver(method, gradient=gradient, precision=Precision.BFLOAT16, kept_bytes=kept_bytes, **steps)
        y1 = solve(f, y0, 0.0, 8.0, solver).y1
        found.append(torch.autograd.grad(y1.square().sum(), list(f.parameters())))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_the_adjoint_takes_its_integral_with_the_weights_of_each_stage(monkeypatch):
    shares, evaluate = [], adjoint.evaluate

    def noting(field, t, y, keep, share=None):
        shares.append(share)
        return evaluate(field, t, y, keep, share)

    monkeypatch.setattr(adjoint, "evaluate", noting)
    f, y0 = Listed(), torch.randn(2, 4)
    solver = Solver(Method.BOSH3, gradient=GradientMode.ADJOINT, precision=Precision.BFLOAT16)
    solve(f, y0, 0.0, 1.0, solver).y1.sum().backward()
    assert {None, 1 / 3} == set(shares)


@pytest.mark.parametrize("gradient", [GradientMode.DIRECT, GradientMode.RECOMPUTE, GradientMode.ADJOINT])
def test_f_keeps_its_weights_and_they_get_their_gradient(gradient):
    f, y0 = Listed(), torch.randn(3, 4)
    before = [(p, p.detach().clone(), p._version) for p in f.parameters()]
    grads = []
    for precision in Precision:
        y1 = solve(f, y0, 0.0, 1.0, Solver(Method.BOSH3, rtol=1e-2, atol=1e-2, gradient=gradient, precision=precision)).y1
        grads.append(torch.autograd.grad(y1.square().sum(), list(f.parameters())))
    for (old, value, version), new in zip(before, f.parameters(), strict=True):
        assert new is old
        assert torch.equal(new, value)
        assert new._version == version
    for low, full in zip(*reversed(grads), strict=True):
        assert 0 < float((low - full).norm()) < 0.03 * float(full.norm())


def test_without_autocast_nothing_is_moved():
    layer, x = nn.Linear(4, 4), torch.randn(2, 4)
    with CompensatingStage(0.5):
        assert torch.equal(layer(x), layer(x))
        inside = layer(x)
    assert torch.equal(inside, layer(x))
    with torch.autocast("cpu", torch.float16), CompensatingStage(0.5):
        half = layer(x)
    with torch.autocast("cpu", torch.float16):
        assert torch.equal(half, layer(x))
