"""The redirect: every call of torchdiffeq is caught or refused, and it leaves no trace."""

import sys
from dataclasses import replace
from functools import partial
from types import ModuleType

import pytest
import torch

torchdiffeq = pytest.importorskip("torchdiffeq")
from torchdiffeq import odeint, odeint_adjoint
from torchdiffeq import odeint_adjoint as renamed

from nodestill.errors import InputError
from nodestill.ode import GradientMode, Method, Solver
from nodestill.subjects.redirect import by_adjoint, exactly, in_few_steps, redirected, tightened
from subjects.redirect_cases import TIGHT, TIMES, Dynamics, states

pytestmark = pytest.mark.parity


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
