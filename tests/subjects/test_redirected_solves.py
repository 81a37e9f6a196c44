"""Redirected solves against torchdiffeq itself: states, gradients, counts and statuses."""

from dataclasses import replace

import pytest
import torch

pytest.importorskip("torchdiffeq")
from torchdiffeq import odeint

from nodestill.ode import Precision, Status, StepControl
from nodestill.subjects.redirect import exactly, in_few_steps, redirected, tightened
from subjects.redirect_cases import TIGHT, TIMES, Dynamics, states

pytestmark = pytest.mark.parity
METHODS = [
    ("dopri5", {}, 1e-7),
    (None, {"max_num_steps": 5000, "dtype": torch.float64}, 1e-7),
    ("dopri5", {"first_step": 0.01}, 1e-7),
    ("bosh3", {}, 1e-4),
    ("adaptive_heun", {}, 1e-2),
    ("euler", {"step_size": 0.1}, 1e-12),
    ("midpoint", {"step_size": 0.1, "interp": "linear"}, 1e-12),
    ("midpoint", {}, 1e-12),
    ("rk4", {"step_size": 0.025}, 1e-7),
]


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(("method", "options", "tolerance"), METHODS)
def test_states_are_torchdiffeqs(method, options, tolerance, backwards):
    f, y0, times = Dynamics(), states(), TIMES.flip(0) if backwards else TIMES
    error = max(1e-9, tolerance / 1000)
    settings = {"rtol": error, "atol": error, "method": method, "options": options or None}
    with torch.no_grad():
        expected = odeint(f, y0, times, **settings)
        with redirected() as solves:
            found = odeint(f, y0, times, **settings)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    assert solves[0].max_steps == options.get("max_num_steps", solves[0].asked.steps)
    assert bool((solves[0].solution.status == Status.DONE).all())


def test_the_classical_rk4_differs_from_torchdiffeqs_by_its_own_error():
    f, y0 = Dynamics(), states()
    differences = []
    for size in (0.1, 0.05):
        with torch.no_grad():
            expected = odeint(f, y0, TIMES, method="rk4", options={"step_size": size})
            with redirected():
                found = odeint(f, y0, TIMES, method="rk4", options={"step_size": size})
        differences.append(float((found - expected).abs().max()))
    assert differences[0] > 10 * differences[1] > 0  # of fourth order


@pytest.mark.parametrize("method", ["dopri5", "euler"])
def test_all_times_are_answered(method):
    f, y0, times = Dynamics(), states(), torch.tensor([0.0, 0.5, 0.6, 1.0], dtype=torch.float64)
    with torch.no_grad():
        expected = odeint(f, y0, times, method=method, **TIGHT)
        with redirected():
            found = odeint(f, y0, times, method=method, **TIGHT)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-8)
    assert torch.equal(found[0], y0)


SCALAR_USES = {
    "broadcast": lambda t, y: torch.ones_like(y[:, :1]) * t,
    "number": lambda t, y: y[:, :1] * 0 + t.item(),
    "expand": lambda t, y: t.expand(len(y), 1),
    "full": lambda t, y: torch.full((len(y), 1), float(t), dtype=y.dtype),
    "branch": lambda t, y: torch.ones_like(y[:, :1]) if t < 0.5 else torch.zeros_like(y[:, :1]),
    "view": lambda t, y: t.view(1, 1).repeat(len(y), 1),
}


@pytest.mark.parametrize("use", SCALAR_USES)
def test_f_gets_one_time_for_the_whole_batch(use):
    f, y0 = Dynamics(SCALAR_USES[use]), states()
    with torch.no_grad():
        expected = odeint(f, y0, TIMES, **TIGHT)
        with redirected():
            found = odeint(f, y0, TIMES, **TIGHT)
    tolerance = 1e-4 if use == "branch" else 1e-7  # the jump costs order
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        ({"method": "midpoint", "options": {"step_size": 0.3}}, exactly),
        ({"rtol": 1e-3, "atol": 1e-3}, exactly),
        ({"rtol": 1e-3, "atol": 1e-3}, tightened),
        ({"rtol": 1e-3, "atol": 1e-3}, lambda solver: in_few_steps(solver, 3)),
        ({"rtol": 1e-3, "atol": 1e-3}, lambda solver: replace(solver, step_control=StepControl.PER_IMAGE)),
    ],
)
def test_the_gradient_is_that_of_the_steps_taken(settings, change):
    f, y0 = Dynamics().requires_grad_(False), states()

    def value(y0):
        with redirected(change):
            return odeint(f, y0, TIMES, **settings)[-1].sin().sum()

    point = y0.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(point), point)
    way = torch.randn_like(y0)
    slope = (value(y0 + 1e-6 * way) - value(y0 - 1e-6 * way)) / 2e-6
    torch.testing.assert_close((gradient * way).sum(), slope, rtol=1e-6, atol=1e-8)


def test_gradients_of_weights_are_torchdiffeqs():
    f, y0 = Dynamics(), states()
    with redirected():
        found = odeint(f, y0, TIMES, **TIGHT)
    expected = odeint(f, y0, TIMES, **TIGHT)
    ours, theirs = (torch.autograd.grad(y.sin().sum(), list(f.parameters())) for y in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("method", "options"), [("dopri5", {}), ("bosh3", {}), ("rk4", {"step_size": 0.1}), ("euler", {})])
def test_evaluations_are_the_calls_of_f(method, options):
    f = Dynamics()
    with torch.no_grad(), redirected() as solves:
        odeint(f, states(), TIMES, rtol=1e-4, atol=1e-4, method=method, options=options)
    assert solves[0].solution.stats.evaluations.tolist() == [f.calls] * 4


def test_evaluations_are_nearly_torchdiffeqs():
    f, y0 = Dynamics(), states()
    with torch.no_grad():
        odeint(f, y0, TIMES, rtol=1e-5, atol=1e-5)
        theirs, f.calls = f.calls, 0
        with redirected():
            odeint(f, y0, TIMES, rtol=1e-5, atol=1e-5)
    assert abs(f.calls - theirs) <= 12  # two steps


def test_steps_are_shared_as_torchdiffeqs_are_unless_asked_otherwise():
    f, y0, loose = Dynamics(), states(), {"rtol": 1e-2, "atol": 1e-2}

    def gap(change):
        with torch.no_grad(), redirected(change):
            return float((odeint(f, y0, TIMES, **loose)[:, :1] - odeint(f, y0[:1], TIMES, **loose)).abs().max())

    with torch.no_grad():
        theirs = float((odeint(f, y0, TIMES, **loose)[:, :1] - odeint(f, y0[:1], TIMES, **loose)).abs().max())
    assert theirs > 1e-8
    assert gap(exactly) > 1e-8
    assert gap(lambda solver: replace(solver, step_control=StepControl.PER_IMAGE)) < 1e-12


def test_an_image_that_fails_is_not_a_number_and_raises_nothing():
    y0 = torch.tensor([[0.5], [2.0]], dtype=torch.float64)  # the second is infinite at t = 0.5
    with redirected() as solves:
        found = odeint(lambda t, y: y * y, y0, torch.tensor([0.0, 1.0]), rtol=1e-5, atol=1e-5)
    assert torch.isnan(found[-1, 1]).all()
    assert (solves[0].solution.status != Status.DONE).tolist() == [False, True]
    torch.testing.assert_close(found[-1, 0], torch.ones(1, dtype=torch.float64), rtol=1e-3, atol=0)


def test_a_step_limit_is_kept():
    with torch.no_grad(), redirected() as solves:
        odeint(Dynamics(), states(), TIMES, options={"max_num_steps": 2}, method="dopri5", **TIGHT)
    assert bool((solves[0].solution.status == Status.STEP_LIMIT).all())
    assert (solves[0].max_steps, solves[0].asked.max_steps) == (2, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_state_keeps_its_dtype_and_f_sees_it(dtype):
    f, seen = Dynamics(dtype=dtype), set()
    f.register_forward_pre_hook(lambda _, inputs: seen.update(part.dtype for part in inputs))
    with redirected():
        found = odeint(f, states(dtype=dtype), TIMES, rtol=1e-2, atol=1e-2)
    assert found.dtype == dtype
    assert seen == {dtype}


def test_an_autocast_goes_on_inside_f():
    f, y0 = Dynamics(dtype=torch.float32), states(dtype=torch.float32)
    with redirected() as solves, torch.autocast("cpu", torch.bfloat16):
        odeint(f, y0, TIMES, rtol=1e-2, atol=1e-2)
    assert solves[0].asked.precision is Precision.BFLOAT16


def test_an_autocast_leaves_a_float64_state_alone():
    f, y0 = Dynamics(), states()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = odeint(f, y0, TIMES, **TIGHT)
        with redirected() as solves:
            found = odeint(f, y0, TIMES, **TIGHT)
    assert solves[0].asked.precision is Precision.FLOAT32
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
