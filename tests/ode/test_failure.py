"""Solves that cannot be done: they say so soon, say why, and leave the neighbours as they would be alone."""

import time

import pytest
import torch
from torch import nn

from nodestill.errors import SolveError
from nodestill.ode import Method, Solver, Status, StepControl, solve
from ode_oracles import EXACT_MODES, Field

MODES = pytest.mark.parametrize("mode", EXACT_MODES, ids=lambda mode: mode.value)
BAD = 1  # the image of `batch` that starts above 5


def batch(dtype=torch.float64):
    return torch.tensor([[0.5, 0.2], [9.0, 8.0], [1.0, -0.4]], dtype=dtype)


class Failing(nn.Module):
    """-w y, but for images that started above 5 something else."""

    def __init__(self, function, dtype=torch.float64):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.8, dtype=dtype))
        self.function = function

    def forward(self, t, y):
        far = ~(y.abs().amax(1, keepdim=True) < 5)
        return torch.where(far, self.function(t, y), -self.w * torch.where(far, 0.0, y))


def not_a_number(t, y):
    return torch.full_like(y, torch.nan)


def infinite(t, y):
    return torch.full_like(y, torch.inf)


def not_a_number_after_the_start(t, y):
    return torch.where(t > 0, torch.nan, -y)


def infinite_after_the_start(t, y):
    return torch.where(t > 0, torch.inf, -y)


def not_a_number_later(t, y):
    return torch.where(t > 0.5, torch.nan, 0 * y)


def explosion(t, y):
    return y * y.abs()


def overflow(t, y):
    return y.exp() * 1e300


def not_smooth(t, y):
    return 1e16 * torch.sign(torch.sin(1e16 * y))


CASES = [
    (not_a_number, Status.NON_FINITE, "not a number"),
    (infinite, Status.NON_FINITE, "infinite"),
    (not_a_number_after_the_start, Status.NON_FINITE, "not a number"),
    (infinite_after_the_start, Status.NON_FINITE, "infinite"),
    (not_a_number_later, Status.NON_FINITE, "scale down f"),
    (overflow, Status.NON_FINITE, "infinite"),
    (explosion, Status.UNDERFLOW, "resolution of time.*becomes infinite"),
    (not_smooth, Status.UNDERFLOW, "stiff or not smooth"),
]
FAILURES = pytest.mark.parametrize(("function", "status", "reason"), CASES, ids=[case[0].__name__ for case in CASES])


@FAILURES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_bad_image_raises_soon_and_says_why(function, status, reason, dtype):
    field, began = Failing(function, dtype), time.perf_counter()
    counted = Field(field, dtype)
    with pytest.raises(
        SolveError, match=rf"t1 = 1\) for 1 of 3 images \(at positions 1\): .*{reason}.*(use|normalise).*shorter t1"
    ):
        solve(counted, batch(dtype), 0.0, 1.0, Solver())
    assert len(counted.calls) < 1200
    assert time.perf_counter() - began < 3


@FAILURES
@pytest.mark.parametrize("control", list(StepControl))
@MODES
def test_neighbours_of_a_failed_image_are_as_if_alone(function, status, reason, control, mode):
    f, good = Failing(function), [0, 2]
    solver = Solver(rtol=1e-4, atol=1e-4, step_control=control, gradient=mode)
    y0 = batch().requires_grad_()
    solution = solve(f, y0, 0.0, 1.0, solver, raises=False, times=(0.25, 1.0))
    assert solution.status.tolist() == [Status.DONE, status, Status.DONE]
    assert bool(solution.y1[BAD].isnan().all())
    assert bool(solution.at_times[1, BAD].isnan().all())
    exact = torch.exp(-f.w)
    torch.testing.assert_close(solution.y1[good], y0[good] * exact, rtol=1e-3, atol=1e-3)
    alone = y0.detach()[good].requires_grad_()
    expected = solve(f, alone, 0.0, 1.0, solver, times=(0.25, 1.0))

    def loss(s, rows):
        return s.y1[rows].square().sum() + s.at_times[0, rows].sum() + s.error[rows].sum()

    of_y0, of_w = torch.autograd.grad(loss(solution, good), [y0, f.w])
    of_alone, of_w_alone = torch.autograd.grad(loss(expected, [0, 1]), [alone, f.w])
    close = {"rtol": 1e-10, "atol": 1e-12} if control is StepControl.PER_IMAGE else {"rtol": 1e-2, "atol": 1e-4}
    if control is StepControl.PER_IMAGE:
        assert torch.equal(solution.stats.evaluations[good], expected.stats.evaluations)
        torch.testing.assert_close(solution.y1[good], expected.y1, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(of_y0[good], of_alone, **close)
    torch.testing.assert_close(of_w, of_w_alone, **close)
    assert bool((of_y0[BAD] == 0).all())


@MODES
@pytest.mark.parametrize("function", [explosion, not_a_number_later, overflow])
def test_a_loss_of_the_failed_image_has_no_gradient_there(function, mode):
    f, y0 = Failing(function), batch().requires_grad_()
    solution = solve(f, y0, 0.0, 1.0, Solver(gradient=mode), raises=False, times=(0.01,))
    loss = solution.y1.square().sum() + solution.at_times.sum() + solution.error.sum()
    of_y0, of_w = torch.autograd.grad(loss, [y0, f.w])
    assert bool((of_y0[BAD] == 0).all())
    assert bool((of_y0[[0, 2]] != 0).all())
    assert bool(of_w.isfinite())


@MODES
@pytest.mark.parametrize("method", [Method.EULER, Method.RK4])
def test_fixed_steps_fail_for_the_bad_image_alone(method, mode):
    f, y0, good = Failing(lambda t, y: y**3), batch().requires_grad_(), [0, 2]
    solver = Solver(method, steps=12, gradient=mode)
    with pytest.raises(SolveError, match=r"for 1 of 3 images \(at positions \d\): .*infinite or not a number"):
        solve(f, y0, 0.0, 3.0, solver)
    solution = solve(f, y0, 0.0, 3.0, solver, raises=False)
    assert solution.status.tolist() == [Status.DONE, Status.NON_FINITE, Status.DONE]
    assert bool(solution.y1[BAD].isnan().all())
    alone = y0.detach()[good].requires_grad_()
    expected = torch.autograd.grad(solve(f, alone, 0.0, 3.0, solver).y1.square().sum(), [alone, f.w])
    of_y0, of_w = torch.autograd.grad(solution.y1[good].square().sum(), [y0, f.w])
    torch.testing.assert_close(of_y0[good], expected[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(of_w, expected[1], rtol=1e-12, atol=1e-12)
    assert bool((of_y0[BAD] == 0).all())


@MODES
def test_an_accepted_step_without_a_derivative_does_not_spread(mode):
    """The failed image took steps at y = 0, where sqrt has an infinite derivative and 0 * inf is not a number."""
    f = Failing(lambda t, y: torch.where(t > 0.5, torch.nan, ((y - 9.0) * (y - 8.0)).abs().sqrt()))
    y0 = batch().requires_grad_()
    solution = solve(f, y0, 0.0, 1.0, Solver(gradient=mode), raises=False)
    assert solution.status.tolist() == [0, Status.NON_FINITE, 0]
    assert bool((solution.steps.sizes[:, BAD] > 0).any())
    of_y0, of_w = torch.autograd.grad(solution.y1[[0, 2]].sum(), [y0, f.w])
    assert bool(of_y0.isfinite().all() & of_w.isfinite())


def test_too_few_steps():
    f = Field(lambda t, y: -y)
    with pytest.raises(
        SolveError, match=r"3 of 3 images \(at positions 0, 1, 2\): 1 steps.*rtol 0.001.*Raise max_steps, loosen rtol and atol"
    ):
        solve(f, batch(), 0.0, 1.0, Solver(max_steps=1))
    assert len(f.calls) == 2 + 6 + 0
    solution = solve(f, batch(), 0.0, 1.0, Solver(max_steps=1), raises=False)
    assert solution.status.tolist() == [Status.STEP_LIMIT] * 3
    assert solution.stats.accepted.tolist() == [1, 1, 1]
    assert bool(solution.y1.isnan().all())
    enough = Solver(max_steps=1, rtol=1e3, first_step=2.0)
    assert solve(f, batch(), 0.0, 1.0, enough).status.tolist() == [Status.DONE] * 3


def test_no_step_is_taken_beyond_the_limit_after_a_time():
    f = Field(lambda t, y: 0 * y)
    solution = solve(f, batch(), 0.0, 1.0, Solver(max_steps=1, first_step=0.5), times=(0.5,), raises=False)
    assert torch.equal(solution.at_times[0], batch())
    assert solution.status.tolist() == [Status.STEP_LIMIT] * 3
    assert len(f.calls) == 1 + 6


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("solver", [Solver(), Solver(Method.RK4, steps=3)])
def test_a_start_that_is_no_number(value, solver):
    y0 = batch()
    y0[BAD, 0] = value
    solution = solve(Field(lambda t, y: -y), y0, 0.0, 1.0, solver, raises=False)
    assert solution.status.tolist() == [0, Status.NON_FINITE, 0]
    torch.testing.assert_close(solution.y1[[0, 2]], solve(Field(lambda t, y: -y), batch()[[0, 2]], 0.0, 1.0, solver).y1)


def test_how_far_the_worst_came():
    with pytest.raises(SolveError, match=r"^Solve stopped 0\.125 after its start \(t1 = -1\)"):
        solve(Field(lambda t, y: -y * y), torch.tensor([[8.0], [0.1]], dtype=torch.float64), 0.0, -1.0, Solver())


def test_a_slope_that_overflows_in_units_of_the_tolerance():
    """1e18 is a float32, its square in units of 1e-3 is not: the first step must not be chosen as zero."""
    f = Failing(lambda t, y: 1e18 * y, torch.float32)
    solution = solve(f, batch(torch.float32), 0.0, 1.0, Solver(), raises=False)
    assert solution.status.tolist() == [0, Status.NON_FINITE, 0]
    assert int(solution.stats.evaluations[BAD]) < 1200


def test_all_images_may_fail():
    f, y0 = Failing(not_a_number), batch()[[BAD, BAD]].requires_grad_()
    solution = solve(f, y0, 0.0, 1.0, Solver(), raises=False)
    assert solution.stats.evaluations.tolist() == [2, 2]
    (gradient,) = torch.autograd.grad(solution.y1.sum(), y0)
    assert torch.equal(gradient, torch.zeros_like(y0))


def test_the_steps_of_a_failed_solve_do_not_lead_to_the_end():
    f = Failing(explosion)
    record = solve(f, batch(), 0.0, 1.0, Solver(), raises=False).steps
    assert solve(f, batch(), 0.0, 1.0, Solver(), replay=record, raises=False).status.tolist() == [0, Status.STEP_LIMIT, 0]
    with pytest.raises(
        SolveError,
        match=r"for 3 of 3 images \(at positions 0, 1, 2\): the steps to be replayed do not add up.*Replay a record of this",
    ):
        solve(f, batch()[[0, 0, 0]], 0.0, 2.0, Solver(), replay=record)


def test_each_reason_is_said_with_its_count():
    f, y0 = Failing(explosion), batch()
    y0[0] = torch.nan
    with pytest.raises(
        SolveError,
        match=r"for 2 of 3 images \(at positions \d, \d\): 1 of them: the step size fell.* 1 of them: f or the state",
    ):
        solve(f, y0, 0.0, 1.0, Solver())


@pytest.mark.parametrize("solver", [Solver(), Solver(Method.RK4, steps=3), Solver(Method.REVERSIBLE, steps=3)])
def test_a_large_state_is_not_an_infinite_one(solver):
    y0 = torch.full((2, 3), 1e25)  # its square is no float32
    assert torch.equal(solve(Field(lambda t, y: 0 * y, torch.float32), y0, 0.0, 1.0, solver).y1, y0)


@pytest.mark.parametrize("solver", [Solver(), Solver(Method.RK4, steps=3), Solver(Method.REVERSIBLE, steps=3)])
def test_an_empty_state_arrives(solver):
    y0 = torch.ones(2, 0, dtype=torch.float64, requires_grad=True)
    y1 = solve(Field(lambda t, y: -y), y0, 0.0, 1.0, solver).y1
    y1.sum().backward()
    assert y1.shape == y0.grad.shape == (2, 0)


def test_a_start_that_is_no_number_has_no_say_in_shared_steps():
    f, good, solver = Failing(not_a_number), batch()[[0, 2]], Solver(step_control=StepControl.SHARED)
    solution = solve(f, batch(), 0.0, 1.0, solver, raises=False)
    alone = solve(f, good, 0.0, 1.0, solver)
    assert torch.equal(solution.stats.evaluations[[0, 2]], alone.stats.evaluations)
    assert torch.equal(solution.y1[[0, 2]], alone.y1)
