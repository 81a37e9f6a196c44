"""Ways to solve the same initial value problem at a tolerance, with evaluations of f counted by one wrapper for all libraries.

Each contender is a function from (f, y0, t1, tolerance) to the end state and, where the library says, its steps. Methods of the
same name are the same pair of formulas, with two exceptions: torchdiffeq's dopri5 estimates its error with Shampine's weights,
and its adaptive_heun starts each step with the last slope of the one before, which was not taken where the step starts.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from classic_problems import by_scipy
from nodestill.errors import SolveError
from nodestill.ode import Method, Solver, solve

_LIMIT = 20_000  # evaluations; also of steps, where a library asks for a limit


class SpentError(Exception):
    """A solve has asked for more evaluations than are allowed: a state that went astray can make any problem stiff."""


FAILURES = (SolveError, SpentError, AssertionError)  # torchdiffeq asserts that its steps do not underflow

Steps = tuple[float, float] | None  # accepted and rejected, mean over the batch; None where a library does not say
Contender = Callable[["Counted", Tensor, float, float], tuple[Tensor, Steps]]


class Counted(nn.Module):
    """f as all libraries call it, with a time for all or one for each, and a count of what it was asked for."""

    def __init__(self, f: nn.Module, batch: int) -> None:
        super().__init__()
        self.f, self.batch, self.elements, self.accepted, self.rejected = f, batch, 0, 0, 0

    @property
    def evaluations(self) -> float:
        """Evaluations of f, mean over the batch."""
        return self.elements / self.batch

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.elements += len(y)
        if self.evaluations > _LIMIT:
            raise SpentError
        return self.f(t.to(y.dtype).reshape(-1, *[1] * (y.dim() - 1)), y)

    def callback_accept_step(self, t0: Tensor, y0: Tensor, dt: Tensor) -> None:
        """Count a step that torchdiffeq has accepted."""
        self.accepted += 1

    def callback_reject_step(self, t0: Tensor, y0: Tensor, dt: Tensor) -> None:
        """Count a step that torchdiffeq has rejected."""
        self.rejected += 1


def ours(method: Method) -> Contender:
    """Our solve."""

    def run(f: Counted, y0: Tensor, t1: float, tolerance: float) -> tuple[Tensor, Steps]:
        found = solve(f, y0, 0.0, t1, Solver(method, tolerance, tolerance, max_steps=_LIMIT))
        return found.y1, (float(found.stats.accepted.double().mean()), float(found.stats.rejected.double().mean()))

    return run


def torchdiffeq(method: str) -> Contender:
    """torchdiffeq's odeint."""

    def run(f: Counted, y0: Tensor, t1: float, tolerance: float) -> tuple[Tensor, Steps]:
        from torchdiffeq import odeint

        times, limit = torch.tensor([0.0, t1], dtype=torch.float64), {"max_num_steps": _LIMIT}
        y1 = odeint(f, y0, times, rtol=tolerance, atol=tolerance, method=method, options=limit)[-1]
        return y1, (f.accepted, f.rejected)

    return run


def torchode(method: str) -> Contender:
    """torchode's solve with an integral controller; its states are flat."""

    def run(f: Counted, y0: Tensor, t1: float, tolerance: float) -> tuple[Tensor, Steps]:
        import torchode

        term = torchode.ODETerm(lambda t, y: f(t, y.view(y0.shape)).flatten(1))
        controller = torchode.IntegralController(tolerance, tolerance, term=term)
        solver = torchode.AutoDiffAdjoint(getattr(torchode, method)(term), controller, max_steps=_LIMIT)
        times = torch.tensor([[0.0, t1]], dtype=y0.dtype).expand(len(y0), 2)
        found = solver.solve(torchode.InitialValueProblem(y0=y0.flatten(1), t_eval=times))
        accepted, steps = (float(found.stats[name].double().mean()) for name in ("n_accepted", "n_steps"))
        return found.ys[:, -1].view(y0.shape), (accepted, steps - accepted)

    return run


def scipy(method: str) -> Contender:
    """SciPy's solve_ivp."""
    return lambda f, y0, t1, tolerance: (by_scipy(f, y0, t1, method, tolerance), None)


CONTENDERS: dict[tuple[str, str], Contender] = {
    ("nodestill", "dopri5"): ours(Method.DOPRI5),
    ("torchdiffeq", "dopri5"): torchdiffeq("dopri5"),
    ("torchode", "dopri5"): torchode("Dopri5"),
    ("SciPy", "dopri5"): scipy("RK45"),
    ("nodestill", "tsit5"): ours(Method.TSIT5),
    ("torchode", "tsit5"): torchode("Tsit5"),
    ("nodestill", "even4"): ours(Method.EVEN4),
    ("nodestill", "even3"): ours(Method.EVEN3),
    ("nodestill", "bosh3"): ours(Method.BOSH3),
    ("torchdiffeq", "bosh3"): torchdiffeq("bosh3"),
    ("SciPy", "bosh3"): scipy("RK23"),
    ("nodestill", "heun-euler"): ours(Method.HEUN_EULER),
    ("torchdiffeq", "heun-euler"): torchdiffeq("adaptive_heun"),
}
