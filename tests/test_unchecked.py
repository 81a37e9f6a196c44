"""Mistakes that the type checks of these tests would catch first: told in a plain interpreter, as users have it."""

import subprocess
import sys

import pytest

SOLVE = "nodestill.solve(torch.nn.Identity(), torch.ones(1, 1)"


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        ("nodestill.Solver(gradient='adjoint')", "gradient must be one of GradientMode.DIRECT"),
        ("nodestill.Solver(method='dopri5')", "method must be one of Method.DOPRI5"),
        ("nodestill.Solver(step_control='shared')", "step_control must be one of StepControl.PER_IMAGE"),
        (
            "nodestill.Solver(method=nodestill.ode.Method.RK4, steps=2.5)",
            "rk4 takes a whole number of steps >= 1, got steps = 2.5",
        ),
        ("nodestill.Solver(max_steps=float('nan'))", "max_steps must be a whole number >= 1, got nan"),
        ("nodestill.Solver(kept_bytes=float('nan'))", "kept_bytes must be a whole number >= 0, got nan"),
        ("nodestill.Solver(compiled='no')", "compiled must be True or False, got 'no'"),
        ("nodestill.Solver(rtol='1e-3')", "rtol and atol must be positive and finite, got '1e-3'"),
        ("nodestill.LinfBudget(eps_255=8 / 255)", "8/255 is eps_255=8"),
        ("nodestill.solve(lambda t, y: y, torch.ones(1, 1), 0.0, 1.0, nodestill.Solver())", "must be a torch.nn.Module"),
        ("nodestill.solve(torch.nn.Identity(), (1.0,), 0.0, 1.0, nodestill.Solver())", "y0 must be a Tensor, got tuple"),
        ("nodestill.solve(torch.nn.Identity(), torch.ones(1, 1), 0.0, 1.0, 'dopri5')", "solver must be a Solver, got str"),
        (
            "nodestill.solve(torch.nn.Identity(), torch.ones(1, 1), 0.0, 1.0, nodestill.Solver(), replay=torch.ones(1, 1))",
            "replay must be a StepRecord, got Tensor",
        ),
        (f"{SOLVE}, None, 1.0, nodestill.Solver())", "t0 must be given in numbers, got None"),
        (f"{SOLVE}, 0.0, 1.0, nodestill.Solver(), times=0.5)", "times must be a sequence of numbers, got 0.5"),
        (f"{SOLVE}, 0.0, 1.0, nodestill.Solver(), times='0.5')", "times must be a sequence of numbers, got '0.5'"),
        (f"{SOLVE}, 0.0, torch.ones((), requires_grad=True), nodestill.Solver())", "t1 requires a gradient"),
        (f"{SOLVE}, 0.0, 1.0, nodestill.Solver(), times=torch.ones(1, requires_grad=True))", "times requires a gradient"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_with_what_to_write_instead(call, sentence):
    done = subprocess.run([sys.executable, "-c", f"import nodestill, torch; {call}"], capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("nodestill.errors.InputError: ")
    assert sentence in last
