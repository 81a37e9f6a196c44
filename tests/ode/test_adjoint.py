"""The continuous adjoint: near the gradient of the solve at tight tolerances, not at loose ones; built of the same steps."""

import pytest
import torch
from torch import nn

from nodestill.errors import InputError, SolveError
from nodestill.ode import GradientMode, Method, Solver, Status, StepControl, solve
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


class _LostBefore(torch.autograd.Function):
    """The state, but where an image starts above 5 its derivative before a half is not a number."""

    @staticmethod
    def forward(ctx, t, y):
        ctx.save_for_backward((y.amax(1, keepdim=True) > 5) & (t < 0.5))
        return y.clone()

    @staticmethod
    def backward(ctx, gradient):
        return None, torch.where(ctx.saved_tensors[0], torch.nan, gradient)


class Lost(nn.Module):
    """-w y, which one image of `mixed` arrives with, but cannot go back with."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.8, dtype=torch.float64))

    def forward(self, t, y):
        return -self.w * _LostBefore.apply(t, y)


def mixed():
    return torch.tensor([[0.5, 0.2], [12.0, 8.0], [1.0, -0.4]], dtype=torch.float64, requires_grad=True)


LOST_SOLVERS = [
    Solver(gradient=GradientMode.ADJOINT),
    Solver(gradient=GradientMode.ADJOINT, step_control=StepControl.SHARED),
    Solver(Method.RK4, steps=8, gradient=GradientMode.ADJOINT),
]
TO_BE_LOST = pytest.mark.parametrize("solver", LOST_SOLVERS, ids=["per image", "shared", "fixed"])


@TO_BE_LOST
@pytest.mark.parametrize(
    "times", [(), (0.5,)]
)  # with a time between, the image is lost after it had its share of the first part
def test_an_image_that_is_lost_on_the_way_back_does_not_spoil_its_neighbours(solver, times, caplog):
    f, y0, good = Lost(), mixed(), [0, 2]
    alone = mixed().detach()[good].requires_grad_()
    found, expected = (
        torch.autograd.grad(everything_of(solve(f, y, 0.0, 1.0, solver, times=times, raises=False)), [y, f.w])
        for y in (y0, alone)
    )
    assert "did not arrive for 1 of 3 images (at positions 1)" in caplog.text
    assert bool(found[0][1].isnan().all())
    close = {"rtol": 1e-12, "atol": 1e-14} if solver.step_control is StepControl.PER_IMAGE else {"rtol": 1e-3, "atol": 1e-4}
    torch.testing.assert_close(found[0][good], expected[0], **close)
    torch.testing.assert_close(found[1], expected[1], **close)


def everything_of(solution):
    return solution.y1.square().sum() + solution.at_times.sum()


@TO_BE_LOST
def test_an_image_that_is_lost_on_the_way_back_raises_if_it_was_asked_for(solver):
    f, y0 = Lost(), mixed()
    y1 = solve(f, y0, 0.0, 1.0, solver).y1
    of_y0, of_w = torch.autograd.grad(y1[[0, 2]].sum(), [y0, f.w], retain_graph=True)
    assert bool((of_y0[1] == 0).all())
    assert bool(of_y0.isfinite().all() & of_w.isfinite())
    with pytest.raises(SolveError, match=r"did not arrive for 1 of 3 images \(at positions 1\).*RECOMPUTE"):
        y1.sum().backward()


def test_where_all_images_are_lost_the_weights_have_a_gradient_of_zero():
    f, y0 = Lost(), mixed().detach()[[1, 1]].requires_grad_()
    y1 = solve(f, y0, 0.0, 1.0, LOST_SOLVERS[0], raises=False).y1
    of_y0, of_w = torch.autograd.grad(y1.sum(), [y0, f.w])
    assert bool(of_y0.isnan().all())
    assert float(of_w) == 0


def test_tensors_out_of_reach_are_refused():
    outside = torch.ones(3, dtype=torch.float64, requires_grad=True)

    class Closure(Net):
        def forward(self, t, y):
            return super().forward(t, y) * outside

    y0 = spread().requires_grad_()
    for solver in (Solver(gradient=GradientMode.ADJOINT), Solver(Method.REVERSIBLE, steps=4)):
        with pytest.raises(InputError, match="not one of its parameters"):
            solve(Closure(), y0, 0.0, 1.0, solver).y1.sum().backward()
