"""The continuous adjoint: near the gradient of the solve at tight tolerances, not at loose ones; built of the same steps."""

import pytest
import torch
from torch import nn

from nodestill.errors import InputError, SolveError
from nodestill.ode import GradientMode, Method, Solver, Status, solve
from ode_oracles import Net, spread


def gradients(f, y0, solver, times=()):
    """Gradients of a weighted sum of everything that a solve returns."""
    solution = solve(f, y0, 0.0, 1.5, solver, times=times)
    states = torch.cat([solution.at_times, solution.y1[None]])
    weights = torch.linspace(-1, 2, states.numel(), dtype=states.dtype).view_as(states)
    return torch.autograd.grad((states * weights).sum(), [y0, *f.parameters()])


def worst(found, expected):
    return max(float((a - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("times", [(), (0.4, 1.1)])
def test_it_approaches_the_exact_gradient_as_the_tolerance_falls(times):
    f, y0 = Net(), spread().requires_grad_()
    exact = gradients(f, y0, Solver(rtol=1e-11, atol=1e-11), times)
    errors = [
        worst(gradients(f, y0, Solver(rtol=t, atol=t, gradient=GradientMode.ADJOINT), times), exact) for t in (1e-3, 1e-6, 1e-9)
    ]
    assert errors[2] < 1e-7 < errors[1] < 1e-4
    assert errors[1] < errors[0] < 0.1


def test_at_a_loose_tolerance_it_is_another_gradient_than_that_of_the_solve():
    f, y0 = Net(), spread().requires_grad_()
    exact = gradients(f, y0, Solver())
    assert worst(gradients(f, y0, Solver(gradient=GradientMode.ADJOINT)), exact) > 1e-5


def test_fixed_steps_go_back_by_the_same_steps():
    f, y0 = Net(), spread().requires_grad_()
    exact = gradients(f, y0, Solver(rtol=1e-11, atol=1e-11))
    errors = [worst(gradients(f, y0, Solver(Method.RK4, steps=n, gradient=GradientMode.ADJOINT)), exact) for n in (10, 20)]
    assert errors[0] / errors[1] > 10  # fourth order: halving the step divides the error by 16


def test_a_failed_image_has_no_gradient_and_leaves_its_neighbours_theirs():
    f, y0 = Net(), spread()
    y0[1] = torch.nan
    y0.requires_grad_()
    solver = Solver(gradient=GradientMode.ADJOINT)
    solution = solve(f, y0, 0.0, 1.5, solver, raises=False)
    assert solution.status.tolist()[1] == Status.NON_FINITE
    (found,) = torch.autograd.grad(torch.nansum(solution.y1), y0)
    assert torch.equal(found[1], torch.zeros_like(found[1]))
    alone = spread()[:1].requires_grad_()
    (expected,) = torch.autograd.grad(solve(f, alone, 0.0, 1.5, solver).y1.sum(), alone)
    torch.testing.assert_close(found[:1], expected, rtol=1e-10, atol=1e-12)


class Root(nn.Module):
    """dy/dt = sqrt(|y|): at rest in 0, where it has no derivative."""

    def forward(self, t, y):
        return y.abs().sqrt()


def test_a_backward_solve_that_does_not_arrive_says_so():
    y0 = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    y1 = solve(Root(), y0, 0.0, 1.0, Solver(gradient=GradientMode.ADJOINT)).y1
    with pytest.raises(SolveError, match="adjoint solve did not arrive for 2 of 2"):
        y1.sum().backward()


def test_tensors_out_of_reach_are_refused():
    outside = torch.ones(3, dtype=torch.float64, requires_grad=True)

    class Closure(Net):
        def forward(self, t, y):
            return super().forward(t, y) * outside

    y0 = spread().requires_grad_()
    for solver in (Solver(gradient=GradientMode.ADJOINT), Solver(Method.REVERSIBLE, steps=4)):
        with pytest.raises(InputError, match="not one of its parameters"):
            solve(Closure(), y0, 0.0, 1.0, solver).y1.sum().backward()
