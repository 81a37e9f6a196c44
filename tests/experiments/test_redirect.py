"""The redirect against torchdiffeq itself: states, gradients, counts; and that it leaves no trace."""

import sys
from dataclasses import replace
from functools import partial
from types import ModuleType

import pytest
import torch
from torch import nn

torchdiffeq = pytest.importorskip("torchdiffeq")
from torchdiffeq import odeint, odeint_adjoint
from torchdiffeq import odeint_adjoint as renamed

from nodestill.errors import InputError
from nodestill.experiments.redirect import by_adjoint, exactly, in_few_steps, redirected, tightened
from nodestill.ode import GradientMode, Method, Precision, Solver, Status, StepControl

pytestmark = pytest.mark.parity
TIMES = torch.tensor([0.2, 1.4], dtype=torch.float64)
TIGHT = {"rtol": 1e-9, "atol": 1e-9}


class Dynamics(nn.Module):
    """A right-hand side with weights that takes t as users do, and counts its calls."""

    def __init__(self, see=lambda t, y: torch.ones_like(y[:, :1]) * t, dtype=torch.float64):
        super().__init__()
        self.layer = nn.Linear(4, 3, dtype=dtype)
        self.see, self.calls = see, 0

    def forward(self, t, y):
        self.calls += 1
        turning = y.roll(1, 1) * torch.cos(y.norm(dim=1, keepdim=True))
        return torch.tanh(self.layer(torch.cat([self.see(t, y), y], 1))) + turning


def states(batch=4, dtype=torch.float64):
    """Initial states that would take steps of different sizes."""
    return torch.randn(batch, 3, dtype=dtype) * torch.logspace(-1, 0.7, batch, dtype=dtype)[:, None]


def local(*arguments, **options):
    from torchdiffeq import odeint as imported_here

    return imported_here(*arguments, **options)


STYLES = {
    "name": lambda *a, **k: odeint(*a, **k),
    "adjoint": lambda *a, **k: odeint_adjoint(*a, **k),
    "another name": lambda *a, **k: renamed(*a, **k),
    "attribute": lambda *a, **k: torchdiffeq.odeint(*a, **k),
    "in the function": local,
}


@pytest.mark.parametrize("style", STYLES)
def test_every_way_to_hold_the_function_is_redirected(style):
    call, f, y0 = STYLES[style], Dynamics(), states()
    with redirected() as solves:
        found = call(f, y0, TIMES, **TIGHT)
    expected = call(f, y0, TIMES, **TIGHT)
    assert len(solves) == 1
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-8)
    assert not torch.equal(found, expected)  # else it was torchdiffeq's
    is_adjoint = style in ("adjoint", "another name")
    assert solves[0].asked.gradient is (GradientMode.ADJOINT if is_adjoint else GradientMode.RECOMPUTE)


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


@pytest.mark.parametrize("wrap", [lambda f: lambda t, y: f(t, y), lambda f: f.forward, lambda f: partial(f)])
@pytest.mark.parametrize("call", [odeint, partial(odeint_adjoint, adjoint_params=())])
def test_f_may_be_any_callable(wrap, call):
    f, y0 = Dynamics().requires_grad_(False), states().requires_grad_()
    name = STYLES["adjoint" if isinstance(call, partial) else "name"]
    options = call.keywords if isinstance(call, partial) else {}
    expected = odeint(f, y0, TIMES, **TIGHT)
    with redirected():
        found = name(wrap(f), y0, TIMES, **TIGHT, **options)
    ours, theirs = (torch.autograd.grad(y.sin().sum(), y0)[0] for y in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


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


def test_the_changes():
    solver = Solver(rtol=1e-3, atol=1e-7, gradient=GradientMode.ADJOINT)
    assert exactly(solver) == replace(solver, gradient=GradientMode.RECOMPUTE)
    assert tightened(solver) == Solver(rtol=1e-5, atol=1e-7, max_steps=10_000)
    assert tightened(Solver(Method.MIDPOINT, steps=3)) == Solver(Method.MIDPOINT, steps=12)
    assert by_adjoint(solver) == Solver(rtol=1e-3, atol=1e-6, gradient=GradientMode.ADJOINT)
    assert in_few_steps(solver, 3) == Solver(Method.RK4, rtol=1e-3, atol=1e-7, steps=3)


def held():
    return {name: value for name, value in vars(torchdiffeq).items() if callable(value)}, odeint, odeint_adjoint, renamed


def test_names_hold_again_what_they_held():
    before = held()
    with redirected():
        assert odeint is not before[1]
        assert torchdiffeq.odeint is odeint
        assert renamed is odeint_adjoint
    assert held() == before
    with pytest.raises(RuntimeError, match="mine"), redirected():
        raise RuntimeError("mine")
    assert held() == before


def test_a_module_that_was_loaded_in_the_block_is_not_left_behind():
    module = ModuleType("loaded_late")
    try:
        with redirected():
            sys.modules["loaded_late"] = module
            module.odeint = odeint
        assert module.odeint is odeint is torchdiffeq.odeint
    finally:
        del sys.modules["loaded_late"]


def test_blocks_may_be_nested():
    f, y0, before = Dynamics(), states(), held()
    with torch.no_grad(), redirected(lambda solver: replace(solver, rtol=1e-2)) as outer:
        odeint(f, y0, TIMES)
        outside = held()
        with redirected(lambda solver: Solver(Method.EULER, steps=3)) as inner:
            odeint(f, y0, TIMES)
        assert held() == outside
        odeint(f, y0, TIMES)
    assert held() == before
    assert (len(outer), len(inner)) == (2, 1)
    assert inner[0].solution.stats.evaluations.tolist() == [3] * 4
    assert inner[0].asked.rtol == 1e-7  # of the call, not of the block around


REFUSED = {
    "dopri8": {"method": "dopri8"},
    "'norm'": {"method": "dopri5", "options": {"norm": torch.max}},
    "event_fn": {"event_fn": lambda t, y: y.sum()},
    "one tensor of real numbers, got tuple": {"y0": (states(), states())},
    "one tensor of real numbers, got torch.int64": {"y0": torch.ones(2, 3, dtype=torch.int64)},
    "at least two times": {"t": TIMES[:1]},
    r"freeze its parameters": {"t": TIMES.clone().requires_grad_()},
    "rtol must be one number": {"rtol": torch.tensor([1e-3, 1e-4])},
    "atol must be one number": {"atol": (1e-3, 1e-4)},
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_redirected_is_refused(message):
    arguments = {"y0": states(), "t": TIMES, **REFUSED[message]}
    with pytest.raises(InputError, match=message), redirected():
        odeint(Dynamics(), **arguments)


def test_calls_past_the_redirect_are_refused():
    kept = partial(odeint, rtol=1e-3)  # no module holds the function itself
    event = {"event_fn": lambda t, y: y[0, 0], "atol": 1e-3}
    for call in (
        lambda: kept(Dynamics(), states(), TIMES),
        lambda: torchdiffeq.odeint_event(Dynamics(), states(), TIMES[0], **event),
        lambda: torchdiffeq.odeint_dense(Dynamics(), states(), TIMES[0], TIMES[1]),
    ):
        with pytest.raises(InputError, match="past the redirect"), redirected():
            call()


def test_a_gradient_that_would_be_lost_is_refused():
    f, y0 = Dynamics(), states().requires_grad_()  # its weights are not frozen, and a function does not show them
    for change in (exactly, lambda solver: replace(solver, gradient=GradientMode.ADJOINT)):
        with redirected(change):
            found = odeint(lambda t, y: f(t, y), y0, TIMES, **TIGHT)
        with pytest.raises(InputError, match=r"requires_grad_\(False\)"):
            found.sum().backward()


def test_without_torchdiffeq_there_is_nothing_to_redirect(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    with pytest.raises(InputError, match="torchdiffeq cannot be imported"), redirected():
        pass
