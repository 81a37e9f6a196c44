"""Gradients: those of the steps that were taken, exactly, whichever way they are made, and of nothing else."""

import pytest
import torch
from torch import nn

from nodestill.errors import InputError
from nodestill.ode import GradientMode, Method, Solver, solve
from nodestill.precision import Precision
from ode_oracles import ConvNet, Field, Net, along, spread

MODES = pytest.mark.parametrize("mode", list(GradientMode), ids=lambda mode: mode.value)


class Linear(nn.Module):
    """y' = W y."""

    def __init__(self, matrix):
        super().__init__()
        self.w = nn.Parameter(matrix.clone())

    def forward(self, t, y):
        return y @ self.w.T


class Metered(torch.autograd.Function):
    """w * y that writes down whenever its derivative by w is asked for."""

    asked: list[bool] = []  # noqa: RUF012

    @staticmethod
    def forward(ctx, w, y):
        ctx.save_for_backward(w, y)
        return w * y

    @staticmethod
    def backward(ctx, grad):
        Metered.asked.append(ctx.needs_input_grad[0])
        w, y = ctx.saved_tensors
        return (grad * y).sum(), grad * w


class MeteredField(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(-0.7, dtype=torch.float64))

    def forward(self, t, y):
        return Metered.apply(self.w, y)


def everything(solution):
    """A loss that each result takes part in."""
    return solution.y1.square().sum() + solution.at_times.sin().sum() + 30 * (solution.error * spread(4)[:, 0]).sum()


def gradients(f, y0, solver, loss=everything, **options):
    y0 = y0.clone().requires_grad_()
    solution = solve(f, y0, 0.0, 1.5, solver, **options)
    return solution, torch.autograd.grad(loss(solution), [y0, *f.parameters()])


@MODES
@pytest.mark.parametrize("method", list(Method), ids=lambda method: method.value)
def test_gradcheck_with_the_steps_held_fixed(mode, method):
    f, y0 = Net(width=2), spread(3, 2).requires_grad_()
    if method.is_adaptive:
        solver = Solver(gradient=mode)
        options = {"replay": solve(f, y0, 0.2, 1.0, solver).steps}
        assert options["replay"].sizes.min() == 0  # images arrive after different numbers of steps
    else:
        solver, options = Solver(method, steps=3, gradient=mode), {"times": (0.5,)}

    def outputs(y, *weights):
        solution = solve(f, y, 0.2, 1.0, solver, **options)
        return solution.y1, solution.at_times

    assert torch.autograd.gradcheck(outputs, (y0, *f.parameters()))


@MODES
def test_gradcheck_of_the_error_and_of_times_with_adaptive_steps_that_cannot_change(mode):
    """With a huge tolerance every step is accepted and the next grows by the full factor, whatever the state."""
    f, y0 = Net(width=2), spread(3, 2).requires_grad_()
    solver = Solver(rtol=1e9, atol=1e9, first_step=0.01, gradient=mode)
    assert solve(f, y0, 0.0, 1.0, solver).steps.sizes[:, 0].tolist() == pytest.approx([0.01, 0.1, 0.89])

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
def test_weight_gradients_are_made_only_when_asked_for(mode):
    f, y0 = MeteredField(), spread(2).requires_grad_()
    for wanted in (True, False):
        f.w.requires_grad_(wanted)
        Metered.asked = []
        solution = solve(f, y0, 0.0, 1.0, Solver(gradient=mode))
        torch.autograd.grad(solution.y1.sum(), y0)
        assert set(Metered.asked) == {wanted}
        assert len(Metered.asked) >= 6


@MODES
def test_state_that_needs_no_gradient(mode):
    f, y0 = Net(), spread()
    torch.autograd.backward(everything(solve(f, y0, 0.0, 1.5, Solver(gradient=mode))))
    _, (_, *expected) = gradients(f, y0, Solver(gradient=mode))
    for parameter, gradient in zip(f.parameters(), expected):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-12, atol=1e-12)


@MODES
def test_a_weight_that_f_does_not_use_has_no_gradient(mode):
    f, y0 = Net(), spread().requires_grad_()
    f.spare = nn.Parameter(torch.ones(2))
    everything(solve(f, y0, 0.0, 1.0, Solver(gradient=mode))).backward()
    assert f.spare.grad is None
    assert f.first.weight.grad is not None


@MODES
def test_the_graph_may_be_used_twice(mode):
    f, y0 = Net(), spread().requires_grad_()
    loss = everything(solve(f, y0, 0.0, 1.5, Solver(gradient=mode), times=(0.5,)))
    first = torch.autograd.grad(loss, [y0, *f.parameters()], retain_graph=True)
    second = torch.autograd.grad(loss, [y0, *f.parameters()])
    for a, b in zip(first, second):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, y0)


@MODES
@pytest.mark.parametrize("changed", ["state", "weight"])
def test_what_the_backward_pass_needs_must_not_change_before_it(mode, changed):
    f, y0 = Net(), spread().requires_grad_()
    loss = everything(solve(f, y0, 0.0, 1.0, Solver(gradient=mode)))
    with torch.no_grad():
        (y0 if changed == "state" else f.first.weight).add_(1.0)
    with pytest.raises(RuntimeError, match="inplace"):
        loss.backward()


@MODES
def test_convolutions(mode):
    f, y0 = ConvNet(), torch.randn(2, 2, 3, 3, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    record = solve(f, y0, 0.0, 1.0, Solver(gradient=mode)).steps
    outputs = lambda y, *w: solve(f, y, 0.0, 1.0, Solver(gradient=mode), replay=record).y1  # noqa: E731
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
    loss = lambda s: s.y1.square().sum()  # noqa: E731
    _, full = gradients(f, y0, Solver(gradient=mode), loss, replay=record)
    _, low = gradients(f, y0, Solver(gradient=mode, precision=Precision.BFLOAT16), loss, replay=record)
    for a, b in zip(full, low):
        assert b.dtype == torch.float32
        assert 0 < float((a - b).norm()) < 0.05 * float(a.norm())


@MODES
def test_nothing_is_recorded_without_need(mode):
    recording = []
    f = Net()
    f.register_forward_hook(lambda *_: recording.append(torch.is_grad_enabled()))
    with torch.no_grad():
        assert not solve(f, spread().requires_grad_(), 0.0, 1.0, Solver(gradient=mode)).y1.requires_grad
    with torch.inference_mode():
        solve(f, spread(), 0.0, 1.0, Solver(gradient=mode))
    f.requires_grad_(False)
    assert not solve(f, spread(), 0.0, 1.0, Solver(gradient=mode)).y1.requires_grad
    assert not any(recording)
    assert solve(f, spread().requires_grad_(), 0.0, 1.0, Solver(gradient=mode)).y1.requires_grad


@MODES
def test_a_gradient_that_would_be_lost_is_refused(mode):
    outside = torch.ones((), dtype=torch.float64, requires_grad=True)
    for foreign in (outside, 2 * outside):
        y0 = spread().requires_grad_()
        loss = solve(Field(lambda t, y: -foreign * y), y0, 0.0, 1.0, Solver(gradient=mode)).y1.sum()  # noqa: B023
        with pytest.raises(InputError, match=r"not one of its parameters.*detach"):
            loss.backward()


@MODES
def test_weights_that_are_computed_are_weights(mode):
    f, y0, factor = Net(), spread(), torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    computed = {f"f.{name}": factor * p for name, p in f.named_parameters()}
    (through,) = torch.func.functional_call(_Differentiated(f, Solver(gradient=mode)), computed, (y0, factor))
    _, (_, *parts) = gradients(f, y0, Solver(gradient=mode), lambda s: s.y1.square().sum())
    torch.testing.assert_close(through, sum((g * p).sum() for g, p in zip(parts, f.parameters())), rtol=1e-9, atol=1e-9)


class _Differentiated(nn.Module):
    def __init__(self, f, solver):
        super().__init__()
        self.f, self.solver = f, solver

    def forward(self, y0, by):
        return torch.autograd.grad(solve(self.f, y0, 0.0, 1.5, self.solver).y1.square().sum(), by)


@MODES
def test_weights_must_be_the_same_tensors_until_the_backward_pass(mode):
    for change in (lambda f: setattr(f.first, "weight", nn.Parameter(f.first.weight.detach() * 2)), freeze):
        f = Net()
        loss = everything(solve(f, spread(), 0.0, 1.0, Solver(gradient=mode)))
        change(f)
        with pytest.raises(InputError, match=r"not those that it was solved with.*Go back"):
            loss.backward()


def freeze(f):
    f.second.requires_grad_(False)
