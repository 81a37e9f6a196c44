"""Calibrating the first step: never more evaluations than probing it, and the same accuracy."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from nodestill.errors import InputError
from nodestill.ode import Method, Solver, calibrated, solve
from ode_oracles import Field, Net, spread


@pytest.mark.parametrize("method", [Method.DOPRI5, Method.BOSH3])
def test_it_saves_evaluations_and_keeps_the_error_controlled(method):
    f, y0 = Net(), spread()
    solver = Solver(method, rtol=1e-4, atol=1e-4)
    chosen = calibrated(f, y0, 0.0, 1.5, solver)
    parts = 1.5 / chosen.first_step
    assert parts == pytest.approx(round(parts))
    probed, measured = (solve(f, y0, 0.0, 1.5, s) for s in (solver, chosen))
    assert measured.stats.evaluations.sum() < probed.stats.evaluations.sum()
    exact = solve(f, y0, 0.0, 1.5, Solver(rtol=1e-11, atol=1e-11)).y1
    assert float((measured.y1 - exact).detach().abs().max()) < 1e-3


def test_no_other_fraction_is_better():
    f, y0 = Net(), spread()
    chosen = calibrated(f, y0, 0.0, 1.5, Solver(rtol=1e-5, atol=1e-5))
    cost = solve(f, y0, 0.0, 1.5, chosen).stats.evaluations.double().mean()
    for parts in range(1, 13):
        other = Solver(rtol=1e-5, atol=1e-5, first_step=1.5 / parts)
        assert 1.02 * solve(f, y0, 0.0, 1.5, other).stats.evaluations.double().mean() >= cost


def test_of_first_steps_that_cost_the_same_it_takes_the_one_with_the_smallest_estimated_error():
    f, y0 = Field(lambda t, y: -y), torch.ones(1, 1, dtype=torch.float64)
    plain = Solver(Method.BOSH3, rtol=1e-3, atol=1e-3)
    found = {parts: solve(f, y0, 0.0, 3.0, replace(plain, first_step=3.0 / parts)) for parts in range(1, 13)}
    fewest = min(int(one.stats.evaluations) for one in found.values())
    errors = {parts: float(one.error) for parts, one in found.items() if int(one.stats.evaluations) == fewest}
    assert len(errors) > 1
    chosen = round(3.0 / calibrated(f, y0, 0.0, 3.0, plain).first_step)
    assert chosen == min(errors, key=errors.get) > min(errors)


def test_fixed_steps_have_nothing_to_calibrate():
    with pytest.raises(InputError, match="equal steps"):
        calibrated(Net(), spread(), 0.0, 1.0, Solver(Method.RK4, steps=3))


def test_an_interval_of_no_length_is_refused():
    with pytest.raises(InputError, match=r"t0 and t1 must be finite and different, got 1\.0 and 1\.0"):
        calibrated(Net(), spread(), 1.0, 1.0, Solver())


def test_an_f_that_blows_up_has_no_first_step():
    class Square(nn.Module):
        def forward(self, t, y):
            return y * y

    with pytest.raises(InputError, match="No first step"):
        calibrated(Square(), torch.ones(2, 1, dtype=torch.float64), 0.0, 2.0, Solver(max_steps=50))
