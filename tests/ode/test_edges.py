"""Edges of a solve at which a result, a gradient or a message was once wrong."""

import pytest
import torch

from nodestill.errors import InputError, SolveError
from nodestill.ode import GradientMode, Method, Solver, StepRecord, odeint, solve
from nodestill.ode.solver import Status
from nodestill.precision import Precision
from ode_oracles import Field, Net, spread

MODES = [
    *[pytest.param(Solver(gradient=mode), id=mode.value) for mode in GradientMode],
    pytest.param(Solver(Method.REVERSIBLE, steps=4), id="reversible"),
]


class Plain(torch.nn.Module):
    """An f that bears a batch of none."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 3, dtype=torch.float64)

    def forward(self, t, y):
        return self.layer(y)


@pytest.mark.parametrize("solver", MODES)
def test_weights_may_be_thawed_before_the_way_back(solver):
    f, y0 = Net(), spread().requires_grad_()
    (expected,) = torch.autograd.grad(solve(f, y0, 0.0, 1.0, solver).y1.sum(), y0)
    f.requires_grad_(False)
    y1 = solve(f, y0, 0.0, 1.0, solver).y1
    f.requires_grad_(True)
    assert torch.equal(torch.autograd.grad(y1.sum(), y0)[0], expected)


@pytest.mark.parametrize("solver", MODES)
def test_where_nobody_goes_back_the_weights_have_a_gradient_of_zero(solver):
    f, y0 = Plain(), torch.full_like(spread(), torch.nan).requires_grad_()
    for some in (y0, y0[:0]):
        found = solve(f, some, 0.0, 1.0, solver, raises=False)
        gradients = torch.autograd.grad(found.y1.nan_to_num().sum(), [y0, *f.parameters()])
        assert all(bool((g == 0).all()) for g in gradients)
    if solver.gradient in (GradientMode.DIRECT, GradientMode.RECOMPUTE) and solver.method.is_adaptive:
        of_error = solve(f, y0, 0.0, 1.0, solver, raises=False).error.sum()
        assert all(bool((g == 0).all()) for g in torch.autograd.grad(of_error, [y0, *f.parameters()]))


@pytest.mark.parametrize("solver", MODES)
def test_f_may_view_its_state(solver):
    layer = torch.nn.Linear(3, 3).double()
    f = Field(lambda t, y: torch.tanh(layer(y.view(-1, 3))).view(y.shape))
    f.layer = layer
    y0 = torch.linspace(-1, 1, 24, dtype=torch.float64).view(2, 4, 3).requires_grad_()
    gradients = torch.autograd.grad(solve(f, y0, 0.0, 1.0, solver).y1.sum(), [y0, *f.parameters()])
    assert all(bool(g.isfinite().all()) for g in gradients)


def test_the_adjoint_keeps_the_memory_layout():
    seen = []
    f = Field(lambda t, y: seen.append(y.is_contiguous(memory_format=torch.channels_last)) or -f.layer(y))
    f.layer = torch.nn.Conv2d(4, 4, 1).double()
    y0 = torch.ones(2, 4, 3, 3, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()
    solve(f, y0, 0.0, 1.0, Solver(gradient=GradientMode.ADJOINT)).y1.sum().backward()
    assert all(seen)


@pytest.mark.parametrize("method", [Method.RK4, Method.REVERSIBLE])
def test_an_autocast_around_it_does_not_reach_into_a_solve(method):
    f, y0 = Field(lambda t, y: -f.layer(y), torch.float32), spread(dtype=torch.float32)
    f.layer = torch.nn.Linear(y0.shape[-1], y0.shape[-1])
    solver = Solver(method, steps=3, precision=Precision.BFLOAT16)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            before = solve(f, y0, 0.0, 1.0, solver).y1
            f.layer.weight.mul_(2)
            after = solve(f, y0, 0.0, 1.0, solver).y1
        f.layer(y0).sum().backward()
    assert not torch.equal(before, after)
    assert f.layer.weight.grad is not None


def test_an_f_that_ends_is_not_blamed_on_the_step_limit():
    f = Field(lambda t, y: torch.where(t > 0.001, torch.nan, -y))
    found = solve(f, spread(), 0.0, 1.0, Solver(first_step=0.5, max_steps=3), raises=False)
    assert found.status.tolist() == [Status.NON_FINITE] * 4


def test_a_state_may_become_infinite_by_a_finite_f():
    f, y0 = Field(lambda t, y: torch.full_like(y, 1e38), torch.float32), torch.tensor([[3e38], [0.0]])
    found = solve(f, y0, 0.0, 1.0, Solver(), raises=False)
    assert found.status.tolist() == [3, 0]
    assert bool(found.y1[0].isnan())


@pytest.mark.parametrize("method", [Method.RK4, Method.REVERSIBLE])
def test_given_steps_are_not_said_to_have_stopped(method):
    with pytest.raises(SolveError, match=r"^Solve did not arrive \(t1 = 3\) for 4 of 4 images.*y0 was so"):
        solve(Net(), torch.full_like(spread(), torch.nan), 0.0, 3.0, Solver(method, steps=4))


def test_a_record_is_taken_as_it_was_made():
    f, y0 = Net(), spread()
    steps = solve(f, y0, 0.0, 1.0, Solver()).steps
    with pytest.raises(InputError, match=r"in torch\.float64, got torch\.float32"):
        solve(f, y0, 0.0, 1.0, Solver(), replay=StepRecord(steps.sizes.float()))


def test_other_mistakes_inside_f_are_told_by_torch():
    with pytest.raises(RuntimeError, match="must match the size"):
        solve(Field(lambda t, y: y + torch.ones(7)), spread(), 0.0, 1.0, Solver())


def test_a_branch_on_time_is_refused_with_its_remedy():
    f = Field(lambda t, y: -y if t < 0.5 else y)
    with pytest.raises(InputError, match=r"torch\.where\(t < 0\.5"):
        solve(f, spread(), 0.0, 1.0, Solver())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"t": torch.tensor([0.0, 1.0, 0.5])}, "strictly increasing or decreasing"),
        ({"t": torch.tensor([0.0, 1.0, 1.0])}, "strictly increasing or decreasing"),
        ({"t": torch.tensor([0.0, float("nan")])}, "strictly increasing or decreasing"),
        ({"t": torch.tensor([0.0, float("inf")])}, "t must be finite"),
        ({"rtol": torch.ones(2)}, "rtol must be one number, got tensor"),
    ],
)
def test_odeint_refuses_in_its_own_names(change, said):
    with pytest.raises(InputError, match=said):
        odeint(**{"func": Net(), "y0": spread(), "t": torch.tensor([0.0, 1.0])} | change)


def test_odeint_takes_tolerances_as_tensors():
    f, y0, t = Net(), spread(), torch.tensor([0.0, 1.0])
    assert torch.equal(
        odeint(f, y0, t, rtol=torch.tensor(1e-3), atol=1e-3), odeint(f, y0, t, rtol=float(torch.tensor(1e-3)), atol=1e-3)
    )
