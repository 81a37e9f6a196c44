"""Gradients: those of the steps that were taken, exactly, whichever way they are made, and of nothing else."""

import pytest
import torch
from torch import nn

from nodestill.ode import GradientMode, Solver, StepRecord, solve
from nodestill.precision import Precision
from ode_oracles import EXACT_MODES, METHODS, ConvNet, Field, Net, along, everything, gradients, spread

MODES = pytest.mark.parametrize("mode", EXACT_MODES, ids=lambda mode: mode.value)


class Linear(nn.Module):
    """y' = W y."""

    def __init__(self, matrix):
        super().__init__()
        self.w = nn.Parameter(matrix.clone())

    def forward(self, t, y):
        return y @ self.w.T


@MODES
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.value)
def test_gradcheck_with_the_steps_held_fixed(mode, method):
    f, y0 = Net(width=2, hidden=2), spread(3, 2).requires_grad_()
    if method.is_adaptive:
        sizes = [[0.3, 0.2, 0.4], [0.5, 0.2, 0.4], [0.0, 0.4, 0.0]]  # images arrive after different numbers of steps
        solver, options = Solver(method, gradient=mode), {"replay": StepRecord(torch.tensor(sizes, dtype=torch.float64))}
    else:
        solver, options = Solver(method, steps=3, gradient=mode), {"times": (0.5,)}

    def outputs(y, *weights):
        solution = solve(f, y, 0.2, 1.0, solver, **options)
        return solution.y1, solution.at_times

    assert torch.autograd.gradcheck(outputs, (y0, *f.parameters()))


@MODES
def test_gradcheck_of_the_error_and_of_times_with_adaptive_steps_that_cannot_change(mode):
    """With a huge tolerance every step is accepted and the next grows by the full factor, whatever the state."""
    f, y0 = Net(width=2, hidden=2), spread(3, 2).requires_grad_()
    solver = Solver(rtol=1e9, atol=1e9, first_step=1 / 64, gradient=mode)
    assert solve(f, y0, 0.0, 1.0, solver).steps.sizes[:, 0].tolist() == [1 / 64, 10 / 64, 53 / 64]

    def outputs(y, *weights):
        solution = solve(f, y, 0.0, 1.0, solver, times=(0.3, 1.0))
        return solution.y1, solution.at_times, solution.error

    assert torch.autograd.gradcheck(outputs, (y0, *f.parameters()))


@MODES
@pytest.mark.parametrize("t1", [2.0, -2.0])
def test_gradients_are_those_of_autograd_through_every_operation(mode, t1):
    f, y0 = Net(), spread(5)
    start = y0.clone().requires_grad_()
    solution = solve(f, start, 0.0, t1, Solver(gradient=mode))
    assert solution.stats.rejected.max() > 0
    assert solution.stats.accepted.unique().numel() > 2
    plain = y0.clone().requires_grad_()
    end, error = along(f, plain, 0.0, solution.steps.sizes * t1 / 2)
    torch.testing.assert_close(solution.y1, end, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(solution.error, error, rtol=1e-9, atol=0)
    ours = torch.autograd.grad(solution.y1.square().sum() + 50 * solution.error.sum(), [start, *f.parameters()])
    theirs = torch.autograd.grad(end.square().sum() + 50 * error.sum(), [plain, *f.parameters()])
    for one, other in zip(ours, theirs):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "loss",
    [
        everything,
        lambda s: s.y1.square().sum(),
        lambda s: s.error.sum(),
        lambda s: s.at_times[0].square().sum(),  # no gradient comes from after it
        lambda s: s.at_times[1, 2].sum(),
        lambda s: s.at_times[0].sum() + s.error[3],
    ],
)
def test_recompute_is_direct(loss):
    f, y0 = Net(), spread(4)
    first, one = gradients(f, y0, Solver(gradient=GradientMode.DIRECT), loss, times=(0.5, 1.2))
    second, other = gradients(f, y0, Solver(gradient=GradientMode.RECOMPUTE), loss, times=(0.5, 1.2))
    assert first.stats.rejected.max() > 0
    assert first.stats.accepted.unique().numel() > 1
    assert torch.equal(first.y1, second.y1)
    for a, b in zip(one, other):
        assert float(a.abs().max()) > 0
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@MODES
def test_gradient_through_a_time_is_that_of_a_solve_to_it(mode):
    f, y0 = Net(), spread(4)
    solver = Solver(rtol=1e-9, atol=1e-9, gradient=mode)
    _, through = gradients(f, y0, solver, lambda s: s.at_times[0].square().sum(), times=(0.8,))
    start = y0.clone().requires_grad_()
    straight = torch.autograd.grad(solve(f, start, 0.0, 0.8, solver).y1.square().sum(), [start, *f.parameters()])
    for a, b in zip(through, straight):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@MODES
def test_closed_form_gradient_of_a_linear_system(mode):
    matrix = torch.tensor([[-0.3, 1.0], [-2.0, 0.1]], dtype=torch.float64)
    f, y0 = Linear(matrix), torch.tensor([[1.0, 0.5], [0.3, -3.0]], dtype=torch.float64)
    _, (of_y0, of_w) = gradients(f, y0, Solver(rtol=1e-10, atol=1e-10, gradient=mode), lambda s: s.y1.square().sum())
    w = matrix.clone().requires_grad_()
    start = y0.clone().requires_grad_()
    exact = torch.autograd.grad((start @ torch.linalg.matrix_exp(1.5 * w).T).square().sum(), [start, w])
    torch.testing.assert_close(of_y0, exact[0], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(of_w, exact[1], rtol=1e-8, atol=1e-8)


@pytest.mark.parity
def test_agrees_with_torchdiffeq():
    torchdiffeq = pytest.importorskip("torchdiffeq")
    f, y0 = Net(), spread()
    _, ours = gradients(f, y0, Solver(rtol=1e-9, atol=1e-9), lambda s: s.y1.square().sum())
    start, span = y0.clone().requires_grad_(), torch.tensor([0.0, 1.5], dtype=torch.float64)
    end = torchdiffeq.odeint(lambda t, y: f(t.expand(len(y), 1), y), start, span, rtol=1e-9, atol=1e-9)[-1]
    for a, b in zip(ours, torch.autograd.grad(end.square().sum(), [start, *f.parameters()])):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@MODES
def test_convolutions(mode):
    f, y0 = ConvNet(), torch.randn(2, 2, 3, 3, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    record = solve(f, y0, 0.0, 1.0, Solver(gradient=mode)).steps

    def outputs(y, *w):
        return solve(f, y, 0.0, 1.0, Solver(gradient=mode), replay=record).y1

    assert torch.autograd.gradcheck(outputs, (y0.requires_grad_(), *f.parameters()), fast_mode=True)


@MODES
@pytest.mark.parametrize(
    ("function", "exact"), [(lambda t, y: 0 * y, 1.0), (lambda t, y: torch.ones_like(y), 1.0), (lambda t, y: y, torch.e)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_degenerate_right_hand_sides(mode, function, exact, dtype):
    """An error estimate of zero, no dependence on the state, and the state itself as slope have ordinary gradients."""
    y0 = torch.ones(2, 3, dtype=dtype, requires_grad=True)
    solution = solve(Field(function, dtype), y0, 0.0, 1.0, Solver(gradient=mode))
    (of_y1,) = torch.autograd.grad(solution.y1.sum(), y0, retain_graph=True)
    (of_error,) = torch.autograd.grad(solution.error.sum(), y0)
    torch.testing.assert_close(of_y1, torch.full_like(y0, exact), rtol=1e-3, atol=0)
    assert bool(torch.isfinite(of_error).all())
    assert float(of_error.abs().max()) < 1e-3


@MODES
def test_bfloat16_gradients_are_near_those_of_float32(mode):
    f, y0 = Net(dtype=torch.float32), 0.3 * spread(dtype=torch.float32)
    record = solve(f, y0, 0.0, 1.5, Solver()).steps

    def loss(s):
        return s.y1.square().sum()

    _, full = gradients(f, y0, Solver(gradient=mode), loss, replay=record)
    _, low = gradients(f, y0, Solver(gradient=mode, precision=Precision.BFLOAT16), loss, replay=record)
    for a, b in zip(full, low):
        assert b.dtype == torch.float32
        assert 0 < float((a - b).norm()) < 0.05 * float(a.norm())
