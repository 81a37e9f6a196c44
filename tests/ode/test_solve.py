"""`solve`: exact solutions, orders, the steps that SciPy takes, landing on times, counts, dtypes, refusals."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import RK45, solve_ivp

from nodestill.ode import Method, Solver, StepRecord, solve, step_size
from nodestill.ode.tableaus import tableau
from ode_oracles import Field, Net, along, spread

TIGHT = Solver(rtol=1e-10, atol=1e-10)
MATRIX = torch.tensor([[-0.5, 2.0, 0.0], [-2.0, -0.5, 1.0], [0.3, 0.0, -1.0]], dtype=torch.float64)
EXACT = {
    "exponential": (lambda t, y: -1.5 * y, lambda t, y0: y0 * math.exp(-1.5 * t)),
    "linear": (lambda t, y: y @ MATRIX.T, lambda t, y0: y0 @ torch.linalg.matrix_exp(MATRIX * t).T),
    "logistic": (lambda t, y: y * (5 - y), lambda t, y0: 5 / (1 + (5 / y0 - 1) * math.exp(-5 * t))),
    "growing rate": (lambda t, y: 2 * t * y, lambda t, y0: y0 * math.exp(t * t)),
    "forced": (lambda t, y: torch.cos(t).expand_as(y), lambda t, y0: y0 + math.sin(t)),
}
HARMONIC = Field(lambda t, y: torch.stack([y[:, 1], -y[:, 0]], 1))
ADAPTIVE = [(Method.DOPRI5, 5), (Method.TSIT5, 5), (Method.EVEN4, 4), (Method.BOSH3, 3), (Method.EVEN3, 3)]
ADAPTIVE += [(Method.HEUN_EULER, 2)]
FIXED = [(Method.EULER, 1), (Method.MIDPOINT, 2), (Method.RK4, 4)]


def start():
    return torch.tensor([[1.0, 2.0, 0.5], [0.2, 3.0, 4.0]], dtype=torch.float64)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("t1", [1.3, -0.7])
def test_exact_solutions(name, t1):
    f, exact = EXACT[name]
    solution = solve(Field(f), start(), 0.0, t1, TIGHT)
    torch.testing.assert_close(solution.y1, exact(t1, start()), rtol=1e-8, atol=1e-8)


def test_harmonic_oscillator_from_a_late_start():
    angle = torch.tensor([0.1, 1.0, 2.0], dtype=torch.float64)

    def at(t):
        return torch.stack([torch.sin(t + angle), torch.cos(t + angle)], 1)

    solution = solve(HARMONIC, at(7.0), 7.0, 7.0 + 4 * math.pi, TIGHT)
    torch.testing.assert_close(solution.y1, at(7.0), rtol=0, atol=1e-8)


@pytest.mark.parametrize(("method", "order"), [*FIXED, *ADAPTIVE])
def test_error_falls_with_the_order_of_the_method(method, order):
    f, y0, counts, errors = Field(lambda t, y: torch.cos(t) * y), torch.ones(1, 1, dtype=torch.float64), (16, 32, 64), []
    for count in counts:
        record = StepRecord(torch.full((count, 1), 2 / count, dtype=torch.float64))
        steps = {} if method.is_adaptive else {"steps": count}
        replay = record if method.is_adaptive else None
        y1 = solve(f, y0, 0.0, 2.0, Solver(method, **steps), replay=replay).y1
        errors.append(abs(float(y1) - math.exp(math.sin(2))))
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert order - 0.35 < slope < order + 0.7  # from above where the leading error is small, as that of tsit5


@pytest.mark.parametrize(("method", "order"), FIXED)
def test_fixed_steps_are_those_of_the_plain_formula(method, order):
    table, f = tableau(method), Net()
    plain = {"a": [[float(w) for w in row] for row in table.a], "b": [float(w) for w in table.b], "e": ()}
    sizes = torch.full((5, 4), 0.05, dtype=torch.float64)
    with torch.no_grad():
        expected, _ = along(f, spread(), 1.0, sizes, c=[float(w) for w in table.c], **plain)
        solution = solve(f, spread(), 1.0, 1.25, Solver(method, steps=5))
    torch.testing.assert_close(solution.y1, expected, rtol=1e-13, atol=1e-13)
    assert solution.stats.evaluations.tolist() == [5 * table.stages] * 4
    assert solution.stats.accepted.tolist() == [5] * 4
    assert solution.error.tolist() == [0.0] * 4


@pytest.fixture
def free_sizes(monkeypatch):
    """Step sizes as the formulas give them, to be compared with SciPy's, which are not rounded to a grid."""
    monkeypatch.setattr(step_size, "on_grid", lambda size: size)


@pytest.mark.usefixtures("free_sizes")
@pytest.mark.parametrize(("method", "name"), [(Method.DOPRI5, "RK45"), (Method.BOSH3, "RK23")])
@pytest.mark.parametrize(("rate", "tol"), [(1.0, 1e-3), (1.0, 1e-6), (1e-7, 1e-3)])
@pytest.mark.parametrize("sign", [1, -1])
def test_takes_the_steps_that_scipy_takes(method, name, rate, tol, sign):
    f, y0 = Field(lambda t, y: -sign * rate * y / (1 + sign * t)), torch.tensor([[3.0, 2.0]], dtype=torch.float64)
    ours = solve(f, y0, 0.0, sign * 100.0, Solver(method, rtol=tol, atol=tol / 10))
    theirs = solve_ivp(lambda t, y: -sign * rate * y / (1 + sign * t), (0, sign * 100), [3, 2], name, rtol=tol, atol=tol / 10)
    sizes = np.abs(np.diff(theirs.t))
    assert int(ours.stats.rejected) == 0  # after a rejection SciPy is more careful
    np.testing.assert_allclose(ours.steps.sizes[: len(sizes) - 2, 0].numpy(), sizes[:-2], rtol=1e-6)
    assert 0 <= int(ours.stats.evaluations) - theirs.nfev < tableau(method).stages  # we make the last two steps equal


@pytest.mark.usefixtures("free_sizes")
@pytest.mark.parametrize("start", [2.0, 1e-7, 0.0], ids=lambda start: f"y0 = {start:g}")
@pytest.mark.parametrize("rate", [1e3, 1.0, 1e-4, 1e-9, 0.0], ids=lambda rate: f"rate {rate:g}")
@pytest.mark.parametrize("sign", [1, -1])
def test_first_step_is_the_one_that_scipy_chooses(start, rate, sign):
    """Each rule of Hairer, Norsett, Wanner decides one of these."""
    f, y0 = Field(lambda t, y: rate * (torch.cos(t) - y)), torch.tensor([[start, start / 2]], dtype=torch.float64)
    ours = solve(f, y0, 0.0, sign * 1e4, Solver(max_steps=1, rtol=1e-3, atol=1e-4), raises=False)
    theirs = RK45(lambda t, y: rate * (np.cos(t) - y), 0, y0[0].numpy(), sign * 1e4, rtol=1e-3, atol=1e-4).h_abs
    np.testing.assert_allclose(f.times[2] * sign, theirs / 5, rtol=1e-9)  # where the second stage of the step lies
    assert int(ours.stats.evaluations) == 8


@pytest.mark.parametrize("gridded", [False, True])
@pytest.mark.parametrize("tol", [1e-2, 1e-4, 1e-7])
@pytest.mark.parametrize(("t0", "t1"), [(0.0, 9.0), (2.0, -3.0)])
def test_works_as_much_and_errs_as_little_as_scipy(tol, t0, t1, gridded, request):
    if not gridded:
        request.getfixturevalue("free_sizes")

    def duffing(t, y):
        return [y[1], 3 * np.sin(2 * t) - y[0] ** 3 - 0.2 * y[1]]

    f = Field(lambda t, y: torch.stack([y[:, 1], 3 * torch.sin(2 * t[:, 0]) - y[:, 0] ** 3 - 0.2 * y[:, 1]], 1))
    y0 = torch.tensor([[3.0, -1.0]], dtype=torch.float64)
    ours = solve(f, y0, t0, t1, Solver(rtol=tol, atol=tol / 10))
    theirs = solve_ivp(duffing, (t0, t1), y0[0].numpy(), method="RK45", rtol=tol, atol=tol / 10)
    assert int(ours.stats.rejected) > 0
    assert abs(int(ours.stats.evaluations) - theirs.nfev) <= max(12, gridded * 0.15 * theirs.nfev)
    exact = solve_ivp(duffing, (t0, t1), y0[0].numpy(), method="DOP853", rtol=1e-13, atol=1e-13).y[:, -1]
    error = np.abs(ours.y1[0].numpy() - exact).max()
    assert error <= 2 * np.abs(theirs.y[:, -1] - exact).max()


@pytest.mark.parity
def test_agrees_with_torchdiffeq():
    torchdiffeq = pytest.importorskip("torchdiffeq")
    f, y0 = Net(), spread()
    with torch.no_grad():
        theirs = torchdiffeq.odeint(
            lambda t, y: f(t.expand(len(y), 1), y), y0, torch.tensor([0.0, 2.0]).double(), rtol=1e-9, atol=1e-9
        )
        ours = solve(f, y0, 0.0, 2.0, Solver(rtol=1e-9, atol=1e-9))
    torch.testing.assert_close(ours.y1, theirs[-1], rtol=1e-7, atol=1e-7)


def test_error_shrinks_with_the_tolerance():
    f, exact = EXACT["linear"]
    tolerances = [1e-2, 1e-4, 1e-6, 1e-8]
    solutions = [solve(Field(f), start(), 0.0, 2.0, Solver(rtol=tol, atol=tol)) for tol in tolerances]
    errors = [float((s.y1 - exact(2.0, start())).abs().max()) for s in solutions]
    assert all(error <= 10 * tol for error, tol in zip(errors, tolerances))
    assert all(next_one < 0.1 * error for error, next_one in pairwise(errors))
    assert all(bool((a.error > b.error).all()) for a, b in pairwise(solutions))


def test_counts_are_the_calls_that_f_saw():
    f = Field(Net())
    solution = solve(f, spread(), 0.0, 3.0, Solver(rtol=1e-4, atol=1e-4))
    stats = solution.stats
    assert stats.evaluations.sum() == sum(f.calls)  # one that has arrived is not evaluated any more
    assert torch.equal(stats.evaluations, 2 + 6 * (stats.accepted + stats.rejected))
    assert torch.equal(stats.accepted, (solution.steps.sizes > 0).sum(0))
    assert stats.accepted.unique().numel() > 1
    assert stats.rejected.max() > 0
    assert len(solution.steps.sizes) == stats.accepted.max()
    assert min(f.times) == 0.0
    assert max(f.times) == 3.0


def test_a_given_first_step_is_taken():
    solution = solve(HARMONIC, torch.ones(1, 2, dtype=torch.float64), 0.0, 5.0, Solver(first_step=0.01))
    assert float(solution.steps.sizes[0]) == 0.01
    assert int(solution.stats.evaluations) == 1 + 6 * int(solution.stats.accepted + solution.stats.rejected)


@pytest.mark.parametrize("solver", [TIGHT, Solver(Method.RK4, steps=200)])
@pytest.mark.parametrize(("t0", "times", "t1"), [(1.0, (1.2, 1.9, 2.5), 3.0), (1.0, (0.9, -1.0), -1.0), (0.0, (1e-12,), 1.0)])
def test_times_are_landed_on(solver, t0, times, t1):
    f = Field(Net().requires_grad_(False))
    solution = solve(f, spread(), t0, t1, solver, times=times)
    assert all(min(abs(t - at) for at in f.times) < 1e-15 for t in times) or not solver.method.is_adaptive
    assert solution.at_times.shape == (len(times), 4, 3)
    for t, state in zip((*times, t1), (*solution.at_times, solution.y1)):
        torch.testing.assert_close(state, solve(f, spread(), t0, t, TIGHT).y1, rtol=1e-6, atol=1e-6)


def test_sizes_are_rounded_down_to_a_grid():
    sizes = torch.logspace(-13, 3, 1001, dtype=torch.float64)
    rounded = step_size.on_grid(sizes)
    assert bool(((rounded <= sizes) & (rounded > sizes * (1 - 1 / 16))).all())
    assert torch.equal(step_size.on_grid(rounded), rounded)
    assert torch.equal(step_size.on_grid(2 * sizes), 2 * rounded)
    assert len(torch.unique(torch.frexp(rounded)[0])) == 16


def test_no_times_no_states():
    assert solve(HARMONIC, torch.ones(3, 2, dtype=torch.float64), 0.0, 1.0, TIGHT).at_times.shape == (0, 3, 2)


def test_two_halves_make_a_whole_and_back_is_the_way_back():
    f, y0 = Net(), spread()
    with torch.no_grad():
        whole = solve(f, y0, 0.0, 2.0, TIGHT).y1
        torch.testing.assert_close(solve(f, solve(f, y0, 0.0, 0.7, TIGHT).y1, 0.7, 2.0, TIGHT).y1, whole, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(solve(f, whole, 2.0, 1.8, TIGHT).y1, solve(f, y0, 0.0, 1.8, TIGHT).y1, rtol=1e-6, atol=1e-6)


@settings(max_examples=15)
@given(t0=st.floats(-3, 3), length=st.floats(1e-3, 4), scale=st.floats(0.01, 10), tol=st.sampled_from([1e-2, 1e-5]))
def test_properties_of_any_solve(t0, length, scale, tol):
    f, mirrored = Field(lambda t, y: torch.sin(3 * t + y)), Field(lambda t, y: -torch.sin(-3 * t + y))
    y0, solver = spread() * scale, Solver(rtol=tol, atol=tol)
    solution = solve(f, y0, t0, t0 + length, solver)
    torch.testing.assert_close(solution.steps.sizes.sum(0), torch.full((4,), length, dtype=torch.float64), rtol=1e-12, atol=0)
    torch.testing.assert_close(solve(mirrored, y0, -t0, -t0 - length, solver).y1, solution.y1, rtol=1e-9, atol=1e-9)
    again = solve(f, y0, t0, t0 + length, solver, replay=solution.steps)
    torch.testing.assert_close(again.y1, solution.y1, rtol=1e-12, atol=1e-12)
    assert torch.equal(again.steps.sizes, solution.steps.sizes)
    assert torch.equal(again.stats.evaluations, 6 * solution.stats.accepted)
