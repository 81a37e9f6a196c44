"""The reversible method: second order, an exact gradient without stored steps, and a bound on how well it is undone."""

import gc

import pytest
import torch
from torch import nn

from nodestill.errors import InputError, SolveError
from nodestill.ode import Method, Solver, Status, StepRecord, reversible, solve
from ode_oracles import Net, spread


class Decay(nn.Module):
    """dy/dt = -rate y."""

    def __init__(self, rate: float = 1.0) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(rate, dtype=torch.float64))

    def forward(self, t, y):
        return -self.rate * y


def test_second_order():
    y0 = spread()
    errors = []
    for steps in (10, 20, 40):
        y1 = solve(Decay(), y0, 0.0, 1.0, Solver(Method.REVERSIBLE, steps=steps)).y1.detach()
        errors.append(float((y1 - y0 * torch.exp(torch.tensor(-1.0, dtype=torch.float64))).abs().max()))
    assert 3.5 < errors[0] / errors[1] < 4.5
    assert 3.5 < errors[1] / errors[2] < 4.5


@pytest.mark.parametrize(("t0", "t1"), [(0.0, 1.0), (1.0, -0.5)])
def test_the_gradient_is_exact_for_the_steps_taken(t0, t1):
    f, y0 = Net(width=2), spread(3, 2).requires_grad_()
    solver = Solver(Method.REVERSIBLE, steps=5)
    assert torch.autograd.gradcheck(lambda y, *_: solve(f, y, t0, t1, solver).y1, (y0, *f.parameters()))


def test_what_is_kept_does_not_grow_with_the_steps():
    def tensors_alive(steps):
        y0 = torch.zeros(4, 333, dtype=torch.float64, requires_grad=True)
        kept = solve(Decay(), y0, 0.0, 1.0, Solver(Method.REVERSIBLE, steps=steps)).y1
        gc.collect()
        alive = sum(type(x) is torch.Tensor and x.shape == (4, 333) for x in gc.get_objects())
        del kept
        return alive

    assert tensors_alive(40) == tensors_alive(4)


def test_four_evaluations_a_step():
    solution = solve(Decay(), spread(), 0.0, 1.0, Solver(Method.REVERSIBLE, steps=7))
    assert set(solution.stats.evaluations.tolist()) == {28}
    assert set(solution.stats.accepted.tolist()) == {7}


def test_a_start_that_is_not_found_again_is_refused(monkeypatch):
    f, y0 = Net().float(), spread().float().requires_grad_()
    y1 = solve(f, y0, 0.0, 1.5, Solver(Method.REVERSIBLE, steps=20)).y1
    y1.sum().backward(retain_graph=True)  # undone to rounding, far below the bound
    monkeypatch.setattr(reversible, "_LARGEST_ERROR", 1e-12)  # float32 cannot do that
    with pytest.raises(SolveError, match="missed the start"):
        y1.sum().backward()


class Stiff(nn.Module):
    """Decay, sixty times as fast where y is negative: far beyond what 30 steps can undo in float32."""

    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(1.0))

    def forward(self, t, y):
        return -self.rate * torch.where(y[:, :1] < 0, 60.0, 1.0) * y


STIFF = Solver(Method.REVERSIBLE, steps=30)


def mixed():
    return torch.tensor([[1.0, 2.0], [-1.0, 0.5], [0.5, 0.5]]).requires_grad_()


def test_who_is_refused_is_named_and_counted_and_only_who_has_a_gradient():
    f, y0 = Stiff(), mixed()
    y1 = solve(f, y0, 0.0, 1.0, STIFF).y1
    with pytest.raises(SolveError, match=r"start of 1 of 3 images \(at positions 1\).*Take fewer steps.*float64"):
        y1.sum().backward(retain_graph=True)
    found = torch.autograd.grad(y1[[0, 2]].sum(), [y0, f.rate])
    good = mixed().detach()[[0, 2]].requires_grad_()
    expected = torch.autograd.grad(solve(f, good, 0.0, 1.0, STIFF).y1.sum(), [good, f.rate])
    torch.testing.assert_close(found[0][[0, 2]], expected[0])
    torch.testing.assert_close(found[1], expected[1])
    assert bool((found[0][1] == 0).all())


def test_who_is_refused_does_not_spoil_its_neighbours(caplog):
    f, y0 = Stiff(), mixed()
    solution = solve(f, y0, 0.0, 1.0, STIFF, raises=False)
    of_y0, of_rate = torch.autograd.grad(solution.y1.sum(), [y0, f.rate])
    assert "1 of 3 images" in caplog.text
    good = mixed().detach()[[0, 2]].requires_grad_()
    expected = torch.autograd.grad(solve(f, good, 0.0, 1.0, STIFF).y1.sum(), [good, f.rate])
    assert bool(of_y0[1].isnan().all())
    torch.testing.assert_close(of_y0[[0, 2]], expected[0])
    torch.testing.assert_close(of_rate, expected[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("start", [0.0, 1e-20])
def test_a_start_of_next_to_nothing_has_its_gradient(start, dtype):
    class Bounded(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3, dtype=dtype)

        def forward(self, t, y):
            return torch.tanh(self.layer(y))

    f = Bounded()
    y0 = torch.full((2, 3), start, dtype=dtype, requires_grad=True)
    found, expected = (
        torch.autograd.grad(solve(f, y0, 0.0, 1.0, solver).y1.sum(), [y0, *f.parameters()])
        for solver in (Solver(Method.REVERSIBLE, steps=100), Solver(Method.RK4, steps=20))
    )
    for ours, rival in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, rival, rtol=1e-3, atol=1e-4)  # a method of order two beside one of order four


def test_the_error_of_the_reconstruction_is_reported():
    y0 = spread().float().requires_grad_()
    solution = solve(Net().float(), y0, 0.0, 1.0, Solver(Method.REVERSIBLE, steps=8))
    assert bool(solution.reconstruction_error.isnan().all())
    solution.y1[1:].sum().backward()
    assert bool(solution.reconstruction_error[0].isnan())  # nothing was asked of it, so it did not go back
    assert bool(((solution.reconstruction_error[1:] > 0) & (solution.reconstruction_error[1:] < 1e-4)).all())
    assert solve(Net(), spread(), 0.0, 1.0, Solver()).reconstruction_error is None


@pytest.mark.parametrize("images", [0, 2])
def test_a_loss_of_nothing_has_a_gradient_of_zero(images):
    f, y0 = Decay(), torch.ones(images, 3, dtype=torch.float64, requires_grad=True)
    y1 = solve(f, y0, 0.0, 1.0, Solver(Method.REVERSIBLE, steps=3)).y1
    of_y0, of_rate = torch.autograd.grad((0 * y1).sum(), [y0, f.rate])
    assert torch.equal(of_y0, torch.zeros_like(y0))
    assert float(of_rate) == 0


def test_everybody_stands_still_in_rows_of_zeros():
    f, solver = Net(), Solver(Method.REVERSIBLE, steps=4)
    first = solve(f, spread(), 0.0, 1.0, solver)
    zeros = torch.zeros(3, 4, dtype=torch.float64)
    found = []
    for record in (first.steps, StepRecord(torch.cat([first.steps.sizes, zeros]))):
        y0 = spread().requires_grad_()
        solution = solve(f, y0, 0.0, 1.0, solver, replay=record)
        assert solution.stats.evaluations.tolist() == [16] * 4
        found.append([solution.y1, *torch.autograd.grad(solution.y1.sum(), [y0, *f.parameters()])])
    for plain, padded in zip(*found, strict=True):
        assert torch.equal(plain, padded)


def test_a_slope_in_float64_does_not_change_the_dtype_of_the_state():
    class Wide(nn.Module):
        def forward(self, t, y):
            return -y.double()

    y0 = spread().float().requires_grad_()
    y1 = solve(Wide(), y0, 0.0, 1.0, Solver(Method.REVERSIBLE, steps=3)).y1
    y1.sum().backward()
    assert y1.dtype == y0.grad.dtype == torch.float32


def test_a_failed_image_leaves_its_neighbours_their_gradient():
    f, y0 = Net(), spread()
    y0[1] = torch.nan
    y0.requires_grad_()
    solver = Solver(Method.REVERSIBLE, steps=6)
    solution = solve(f, y0, 0.0, 1.0, solver, raises=False)
    assert solution.status.tolist()[1] == Status.NON_FINITE
    found = torch.autograd.grad(torch.nansum(solution.y1), [y0, *f.parameters()])
    assert all(bool(torch.isfinite(g).all()) for g in found)
    good = torch.cat([spread()[:1], spread()[2:]]).requires_grad_()
    expected = torch.autograd.grad(solve(f, good, 0.0, 1.0, solver).y1.sum(), [good, *f.parameters()])
    torch.testing.assert_close(torch.cat([found[0][:1], found[0][2:]]), expected[0], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-9, atol=1e-12)


def test_times_between_are_refused():
    with pytest.raises(InputError, match="reversible"):
        solve(Decay(), spread(), 0.0, 1.0, Solver(Method.REVERSIBLE, steps=4), times=(0.5,))
