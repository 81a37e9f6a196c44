"""The look-alike of torchdiffeq: the same shapes, the same answers at tight tolerances, clear refusals."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from nodestill.errors import InputError, SolveError
from nodestill.ode import odeint, odeint_adjoint
from ode_oracles import Field, Net, spread

TIMES = torch.tensor([0.2, 0.5, 1.4], dtype=torch.float64)


@pytest.mark.parity
@pytest.mark.parametrize("name", ["odeint", "odeint_adjoint"])
@pytest.mark.parametrize("backwards", [False, True])
def test_states_and_gradients_are_torchdiffeqs(name, backwards):
    torchdiffeq = pytest.importorskip("torchdiffeq")
    f, y0 = Net(), spread().requires_grad_()
    times = TIMES.flip(0) if backwards else TIMES
    mine, theirs = {"odeint": odeint, "odeint_adjoint": odeint_adjoint}[name], getattr(torchdiffeq, name)
    found, expected = (solver(f, y0, times, rtol=1e-10, atol=1e-10) for solver in (mine, theirs))
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-8)
    weights = torch.linspace(-1, 1, found.numel(), dtype=found.dtype).view_as(found)
    a, b = (torch.autograd.grad((y * weights).sum(), [y0, *f.parameters()]) for y in (found, expected))
    for ours, rival in zip(a, b, strict=True):
        torch.testing.assert_close(ours, rival, rtol=1e-6, atol=1e-7)


@pytest.mark.parity
def test_fixed_steps_are_torchdiffeqs():
    torchdiffeq = pytest.importorskip("torchdiffeq")
    f, y0, times = Net(), spread(), torch.tensor([0.0, 1.0], dtype=torch.float64)
    with torch.no_grad():
        found = odeint(f, y0, times, method="midpoint", options={"step_size": 0.125})
        expected = torchdiffeq.odeint(f, y0, times, method="midpoint", options={"step_size": 0.125})
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "dopri8"}, "dopri8"),
        ({"options": {"norm": 1}}, "norm"),
        ({"t": torch.tensor([0.0], dtype=torch.float64)}, "at least two times"),
        ({"t": torch.tensor([0.0, 1.0, 0.5], dtype=torch.float64)}, "strictly increasing or decreasing"),
        ({"t": TIMES.clone().requires_grad_()}, "t requires a gradient.*detach"),
        ({"options": {"step_size": 0.1}}, "'step_size' has no effect: dopri5"),
        ({"method": "rk4", "options": {"first_step": 0.1}}, "'first_step' has no effect: rk4"),
        ({"method": "rk4", "options": {"max_num_steps": 9}}, "'max_num_steps' has no effect: rk4"),
        ({"method": "rk4", "options": {"step_size": float("inf")}}, "step_size must be positive and finite"),
        ({"method": "rk4", "options": {"step_size": 1e-320}}, "step_size must be positive and finite.*no more than"),
        ({"method": "rk4", "options": {"step_size": "small"}}, "step_size must be one number, got 'small'"),
        ({"options": {"first_step": torch.ones(2)}}, "first_step must be one number"),
        ({"options": {"max_num_steps": float("nan")}}, "max_num_steps must be a whole number"),
        ({"options": {"max_num_steps": None}}, "max_num_steps must be one number, got None"),
        ({"options": {"step_control": ["shared"]}}, "Unknown step_control"),
        ({"event_fn": lambda t, y: y[0]}, "event_fn must be None"),
    ],
)
def test_refusals(settings, message):
    arguments = {"t": TIMES, **settings}
    with pytest.raises(InputError, match=message):
        odeint(Net(), spread(), **arguments)


@pytest.mark.parametrize("name", ["rtol", "atol", "method", "options", "params"])
def test_arguments_of_the_adjoint_solve_are_refused_unless_none(name):
    f, y0 = Net(), spread()
    plain = odeint_adjoint(f, y0, TIMES, rtol=1e-4, atol=1e-4)
    with torch.no_grad():  # times that nobody differentiates may require a gradient
        same = odeint_adjoint(f, y0, TIMES.clone().requires_grad_(), rtol=1e-4, atol=1e-4, **{f"adjoint_{name}": None})
    assert torch.equal(plain.detach(), same)
    with pytest.raises(InputError, match=f"adjoint_{name} must be None"):
        odeint_adjoint(f, y0, TIMES, **{f"adjoint_{name}": ()})


def test_no_method_is_dopri5():
    f, y0 = Net(), spread()
    assert torch.equal(odeint(f, y0, TIMES, method=None), odeint(f, y0, TIMES, method="dopri5"))


@pytest.mark.parity
@pytest.mark.parametrize(("size", "steps"), [(0.7, 2), (1.5, 1), (0.4, 3), (0.1, 10), (0.001, 1000)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_step_is_larger_than_asked_for(size, steps, dtype):
    torchdiffeq = pytest.importorskip("torchdiffeq")
    calls = []
    f = Field(lambda t, y: calls.append(len(y)) or 0 * y, dtype)
    call = {"y0": spread(dtype=dtype), "t": torch.tensor([0.0, 1.0], dtype=dtype), "method": "euler"}
    odeint(f, **call, options={"step_size": size})
    assert len(calls) == steps
    torchdiffeq.odeint(lambda t, y: calls.append(0) or 0 * y, **call, options={"step_size": size})
    assert len(calls) == 2 * steps


def test_no_step_between_uneven_times_is_larger_than_asked_for():
    times, seen = torch.tensor([0.0, 0.35, 0.4, 1.7], dtype=torch.float64), []
    odeint(Field(lambda t, y: seen.append(float(t[0])) or 0 * y), spread(), times, method="euler", options={"step_size": 0.3})
    starts = [*seen, float(times[-1])]
    assert max(after - before for before, after in pairwise(starts)) <= 0.3 + 1e-9
    assert {0.0, 0.35, 0.4} <= {round(start, 9) for start in starts}


def test_numbers_of_every_kind_are_numbers():
    f, y0 = Net(), spread()
    plain = odeint(f, y0, TIMES, options={"first_step": 0.05, "max_num_steps": 100})
    kinds = {"first_step": torch.tensor(0.05, dtype=torch.float64), "max_num_steps": np.int64(100)}
    assert torch.equal(odeint(f, y0, TIMES, options=kinds), plain)


def test_a_failure_is_told_in_the_names_of_these_arguments():
    with pytest.raises(SolveError, match=r"t\[-1\] = 1\.4\).*Raise options\['max_num_steps'\].*shorter t\[-1\]\.") as failure:
        odeint(Net(), spread(), TIMES, options={"max_num_steps": 1, "first_step": 0.01})
    assert "max_steps" not in str(failure.value)


def test_a_reversible_solve_goes_from_one_time_to_another():
    f, y0 = Net(), spread().requires_grad_()
    found = odeint(f, y0, TIMES[[0, 2]], method="reversible", options={"step_size": 0.01})
    expected = odeint(f, y0, TIMES[[0, 2]], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(InputError, match="no times between"):
        odeint(f, y0, TIMES, method="reversible", options={"step_size": 0.01})


@pytest.mark.parity
@pytest.mark.parametrize("times", [torch.linspace(0, 1, 11), torch.tensor([0.0, 0.1, 1.0]), torch.linspace(1, 0, 8)])
@pytest.mark.parametrize("method", ["euler", "midpoint"])
def test_without_a_step_size_a_step_goes_from_time_to_time(times, method):
    torchdiffeq = pytest.importorskip("torchdiffeq")
    f, y0, times = Net(), spread(), times.double()  # stretches that are equal but for rounding to float32
    with torch.no_grad():
        found, expected = (solver(f, y0, times, method=method) for solver in (odeint, torchdiffeq.odeint))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
