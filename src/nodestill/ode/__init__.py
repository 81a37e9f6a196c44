"""Solving initial value problems: batch-independent, with exact gradients, and with an account of what was done."""

from nodestill.errors import InputError, SolveError
from nodestill.ode.calibrate import calibrated
from nodestill.ode.solve import solve
from nodestill.ode.solver import (
    GradientMode,
    Method,
    Solution,
    Solver,
    SolveStats,
    Status,
    StepControl,
    StepRecord,
)
from nodestill.ode.torchdiffeq_style import odeint, odeint_adjoint
from nodestill.precision import Precision

__all__ = [
    "GradientMode",
    "InputError",
    "Method",
    "Precision",
    "Solution",
    "SolveError",
    "SolveStats",
    "Solver",
    "Status",
    "StepControl",
    "StepRecord",
    "calibrated",
    "odeint",
    "odeint_adjoint",
    "solve",
]
