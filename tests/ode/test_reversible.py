"""The reversible method: second order, an exact gradient without stored steps, and a bound on how well it is undone."""

import gc

import pytest
import torch
from torch import nn

from nodestill.errors import InputError, SolveError
from nodestill.ode import Method, Solver, Status, reversible, solve
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
    with pytest.raises(SolveError, match="missed its start"):
        y1.sum().backward()


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
