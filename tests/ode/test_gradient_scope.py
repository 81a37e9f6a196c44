"""What a backward pass does not do: unasked work, unnoticed change, silent loss of a gradient."""

from typing import ClassVar

import pytest
import torch
from torch import nn

from nodestill.errors import InputError
from nodestill.ode import GradientMode, Method, Solver, adjoint, reversible, solve, step
from ode_oracles import EXACT_MODES, Field, Net, everything, gradients, spread

MODES = pytest.mark.parametrize("mode", EXACT_MODES, ids=lambda mode: mode.value)

ALL_SOLVERS = [*[Solver(gradient=mode) for mode in GradientMode], Solver(Method.REVERSIBLE, steps=5)]
EVERY_SOLVER = pytest.mark.parametrize(
    "solver", ALL_SOLVERS, ids=lambda solver: f"{solver.method.value}-{solver.gradient.value}"
)


class Metered(torch.autograd.Function):
    """w * y that writes down whenever its derivative by w is asked for."""

    asked: ClassVar[list[bool]] = []

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


@EVERY_SOLVER
def test_weights_that_could_have_a_gradient_cost_nothing_where_only_the_states_is_asked_for(solver, monkeypatch):
    """`pull_back_slope` is where every mode differentiates f: it must not be handed weights that nobody asked about."""
    asked = []
    original = step.pull_back_slope

    def watched(kept, seed, parameters):
        asked.append(len(parameters))
        return original(kept, seed, parameters)

    for module in (step, adjoint, reversible):
        monkeypatch.setattr(module, "pull_back_slope", watched)
    f, y0 = Net(), spread().requires_grad_()
    y1 = solve(f, y0, 0.0, 1.0, solver).y1.square().sum()

    def asks(*inputs):
        asked.clear()
        torch.autograd.grad(y1, inputs, retain_graph=True)
        return max(asked)

    assert asks(y0) == 0
    assert asks(y0, f.first.weight) == 1
    assert asks(*f.parameters()) == len(list(f.parameters()))
    asked.clear()
    y1.backward(inputs=[y0])
    assert max(asked) == 0
    assert f.first.weight.grad is None


@EVERY_SOLVER
def test_the_callers_autocast_does_not_reach_the_backward_pass(solver):
    f, y0 = Net(dtype=torch.float32), spread(dtype=torch.float32).requires_grad_()
    found = []
    for low in (False, True):
        y1 = solve(f, y0, 0.0, 1.0, solver).y1.square().sum()
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            found.append(torch.autograd.grad(y1, [y0, *f.parameters()]))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@EVERY_SOLVER
def test_a_second_derivative_is_refused(solver):
    """A sum hands a constant gradient back, so that a penalty on the gradient would train nothing."""
    f, y0 = Net(), spread().requires_grad_()
    loss = solve(f, y0, 0.0, 1.0, solver).y1.sum()
    (plain,) = torch.autograd.grad(loss, y0, retain_graph=True)
    with pytest.raises(InputError, match=r"create_graph=True.*first derivatives only.*Leave out"):
        torch.autograd.grad(loss, y0, create_graph=True)
    loss.backward()
    torch.testing.assert_close(y0.grad, plain, rtol=1e-12, atol=1e-12)


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
def test_what_the_caller_hands_to_the_backward_pass_is_left_alone(mode):
    f, y0, given = Net(), spread().requires_grad_(), torch.ones(4, 3, dtype=torch.float64)
    y1 = solve(f, y0, 0.0, 1.5, Solver(gradient=mode)).y1
    one, *_ = torch.autograd.grad(y1, y0, given, retain_graph=True)
    other, *_ = torch.autograd.grad(y1, y0, given[:1, :1].expand(4, 3))  # as the gradient of a sum comes: overlapping memory
    assert torch.equal(given, torch.ones_like(given))
    torch.testing.assert_close(one, other, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("mode", "again"), [(GradientMode.DIRECT, 1), (GradientMode.RECOMPUTE, None)])
def test_evaluations_that_were_kept_are_not_made_again(mode, again):
    """DIRECT evaluates once more, at the time asked for; RECOMPUTE makes the six evaluations of each step again."""
    f = Field(Net())
    solution = solve(f, spread(1).requires_grad_(), 0.0, 1.5, Solver(gradient=mode), times=(0.7,))
    assert int(solution.stats.rejected) == 1  # of which nothing is left to go back through
    calls = len(f.calls)
    solution.y1.sum().backward()
    assert len(f.calls) - calls == (again or 6 * int(solution.stats.accepted))


def test_given_steps_have_no_error_to_differentiate():
    f, y0 = Net(), spread().requires_grad_()
    record = solve(f, y0, 0.0, 1.5, Solver()).steps
    assert solve(f, y0, 0.0, 1.5, Solver()).error.requires_grad
    again = solve(f, y0, 0.0, 1.5, Solver(), replay=record)
    assert again.y1.requires_grad
    assert not again.error.requires_grad
    assert again.error.tolist() == [0.0] * 4


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
@pytest.mark.parametrize("factor", [None, 2.0])
def test_a_gradient_that_would_be_lost_is_refused(mode, factor):
    outside = torch.ones((), dtype=torch.float64, requires_grad=True)
    foreign = outside if factor is None else factor * outside  # a leaf, or computed from one
    loss = solve(Field(lambda t, y: -foreign * y), spread().requires_grad_(), 0.0, 1.0, Solver(gradient=mode)).y1.sum()
    with pytest.raises(InputError, match=r"not one of its parameters.*detach"):
        loss.backward()


class ReadsAtTimes(nn.Module):
    """-y, with a tensor in it that a gradient would be lost of, but only while the time is between two."""

    def __init__(self, times):
        super().__init__()
        self.times, self.foreign = times, [torch.ones((), dtype=torch.float64, requires_grad=True)]

    def forward(self, t, y):
        first, last = self.times
        return -self.foreign[0] * y if first <= float(t.flatten()[0]) <= last else -y


@EVERY_SOLVER
@pytest.mark.parametrize("times", [(0.0, 0.1), (0.9, 1.0)], ids=["at the start", "at the end"])
def test_a_gradient_that_would_be_lost_at_one_end_is_refused(solver, times):
    loss = solve(ReadsAtTimes(times), spread().requires_grad_(), 0.0, 1.0, solver).y1.sum()
    with pytest.raises(InputError, match="not one of its parameters"):
        loss.backward()


@MODES
def test_a_gradient_that_would_be_lost_in_the_middle_is_refused(mode):
    loss = solve(ReadsAtTimes((0.4, 0.6)), spread().requires_grad_(), 0.0, 1.0, Solver(Method.RK4, steps=6, gradient=mode)).y1
    with pytest.raises(InputError, match="not one of its parameters"):
        loss.sum().backward()


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


@EVERY_SOLVER
def test_frozen_weights_too_must_be_the_same_until_the_backward_pass(solver):
    """Autograd watches only those that require a gradient: with others the steps made again would be those of another f."""
    for change in (lambda f: f.first.weight.mul_(3.0), lambda f: setattr(f.first, "weight", nn.Parameter(f.second.weight.T))):
        f, y0 = Net(), spread().requires_grad_()
        f.first.requires_grad_(False)
        loss = solve(f, y0, 0.0, 1.0, solver).y1.sum()
        torch.autograd.grad(loss, y0, retain_graph=True)
        with torch.no_grad():
            change(f)
        with pytest.raises(InputError, match=r"changed while frozen.*Go back"):
            loss.backward()


def freeze(f):
    f.second.requires_grad_(False)
