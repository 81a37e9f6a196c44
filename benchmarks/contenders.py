"""Ways to solve the same initial value problem with the same f: ours, and those of other libraries.

Each contender is a function from (f, y0) to the state at t1. All rivals run as their documentation says, at the same
tolerances; `autocast` is the one-line change that a user would try first.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nodestill.errors import InputError
from nodestill.models import Activation, ConvDynamics
from nodestill.ode import GradientMode, Method, Solver, StepControl, StepRecord, calibrated, solve
from nodestill.precision import Precision

Contender = Callable[[ConvDynamics, Tensor], Tensor]
TOLERANCE = 1e-3


class Chosen(NamedTuple):
    """A method and the tolerance that it runs at."""

    method: Method
    tolerance: float

    @classmethod
    def read(cls, text: str) -> "Chosen":
        """Return the method and the tolerance that a text such as even4:4e-3 names."""
        name, _, tolerance = text.partition(":")
        return cls(Method(name), float(tolerance))


class AsUsual(nn.Module):
    """The same f as it is usually written: the time as one more channel, PyTorch's own convolution, norm and ReLU.

    It shares the parameters of a `ConvDynamics`, so that gradients can be compared.
    """

    def __init__(self, f: ConvDynamics) -> None:
        super().__init__()
        if f.pre_activation or f.scale != 1 or f.activation is not Activation.RELU:
            raise InputError("Only f with ReLU behind its convolutions and scale 1 is written here as it is usually written.")
        self.f, self.t1 = f, f.t1

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        time = (t / self.t1).to(y.dtype).expand(len(y), 1, *y.shape[2:])
        x, last = y, len(self.f.convs) - 1
        for i, conv in enumerate(self.f.convs):
            weight = torch.cat([conv.weight, self.f.time_kernels[i][:, None]], 1)
            x = F.conv2d(torch.cat([x, time.to(x.dtype)], 1), weight, conv.bias, padding=1)
            x = self.f.norms[i](x) if len(self.f.norms) else x
            x = F.relu(x) if i < last else x
        return x


class ByRival(nn.Module):
    """f as torchdiffeq and torchode call it: with a scalar time or one time per image."""

    def __init__(self, dynamics: nn.Module) -> None:
        super().__init__()
        self.dynamics = dynamics

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        t = t.to(y.dtype)
        return self.dynamics(t.reshape(-1, 1, 1, 1) if t.dim() else t.expand(1, 1, 1, 1), y)


def torchdiffeq_direct(f: ConvDynamics, y0: Tensor, tolerance: float = TOLERANCE) -> Tensor:
    """torchdiffeq's dopri5 with backpropagation through the solve."""
    from torchdiffeq import odeint

    return odeint(ByRival(f), y0, torch.tensor([0.0, f.t1]), rtol=tolerance, atol=tolerance)[-1]


def torchdiffeq_adjoint(f: ConvDynamics, y0: Tensor) -> Tensor:
    """torchdiffeq's dopri5 with the continuous adjoint."""
    from torchdiffeq import odeint_adjoint

    return odeint_adjoint(ByRival(f), y0, torch.tensor([0.0, f.t1]), rtol=TOLERANCE, atol=TOLERANCE)[-1]


def torchdiffeq_autocast(f: ConvDynamics, y0: Tensor) -> Tensor:
    """torchdiffeq's dopri5 under bfloat16 autocast."""
    with torch.autocast(y0.device.type, torch.bfloat16):
        return torchdiffeq_direct(f, y0)


def torchode_per_image(f: ConvDynamics, y0: Tensor) -> Tensor:
    """torchode's dopri5, which controls steps per image; its states are flat."""
    import torchode

    shape = y0.shape
    term = torchode.ODETerm(lambda t, y: f(t.reshape(-1, 1, 1, 1).to(y.dtype), y.view(shape)).flatten(1))
    controller = torchode.IntegralController(TOLERANCE, TOLERANCE, term=term)
    method = torchode.AutoDiffAdjoint(torchode.Dopri5(term), controller)
    times = torch.tensor([[0.0, f.t1]]).expand(len(y0), 2)
    problem = torchode.InitialValueProblem(y0=y0.flatten(1), t_eval=times)
    return method.solve(problem).ys[:, -1].view(shape)


def ours(solver: Solver, replay: StepRecord | None = None) -> Contender:
    """Our solve with given settings."""
    return lambda f, y0: solve(f, y0, 0.0, f.t1, solver, replay=replay).y1


def our_contenders(f: ConvDynamics, y0: Tensor, others: Sequence[Chosen], *, few: bool) -> dict[str, Contender]:
    """Return our solves by name, first steps calibrated on the first 32 images; `few` leaves the minor ones out.

    Methods besides dopri5 run at tolerances of their own because what is compared is the error of the result, not its setting.
    """
    found: dict[str, Contender] = {}
    for method, tolerance in [Chosen(Method.DOPRI5, TOLERANCE), *others]:
        plain = calibrated(f, y0[:32], 0.0, f.t1, Solver(method, tolerance, tolerance))
        for precision in Precision:
            for gradient in (GradientMode.DIRECT, GradientMode.RECOMPUTE):
                solver = replace(plain, precision=precision, gradient=gradient)
                found[f"ours {method.value} {tolerance:g}, {precision.value}, {gradient.value}"] = ours(solver)
            for gradient in (GradientMode.DIRECT, GradientMode.RECOMPUTE):
                if method is not Method.DOPRI5 and not (few and f.t1 > 1):
                    solver = replace(plain, precision=precision, gradient=gradient, compiled=True)
                    found[f"ours {method.value} {tolerance:g}, compiled, {precision.value}, {gradient.value}"] = ours(solver)
    return found if few else found | _minor(f, y0)


def _minor(f: ConvDynamics, y0: Tensor) -> dict[str, Contender]:
    """Return replays, eager and compiled, and the pair that shows the price of controlling steps per image."""
    plain = calibrated(f, y0[:32], 0.0, f.t1, Solver(gradient=GradientMode.DIRECT))
    with torch.no_grad():
        record = solve(f, y0, 0.0, f.t1, plain).steps
    found: dict[str, Contender] = {}
    for precision in Precision:
        again = replace(plain, precision=precision)
        found[f"ours dopri5 0.001, {precision.value}, direct, replayed"] = ours(again, record)
        found[f"ours dopri5 0.001, {precision.value}, replayed, compiled"] = compiled(again, record)
    for control in StepControl:
        found[f"ours dopri5 0.001, {control.value}, first step probed"] = ours(Solver(step_control=control))
    return found


def compiled(solver: Solver, replay: StepRecord) -> Contender:
    """Return a replayed solve as one compiled graph, forward and backward."""

    def run(f: ConvDynamics, y0: Tensor) -> Tensor:
        return solve(f, y0, 0.0, f.t1, solver, replay=replay, raises=False).y1

    return torch.compile(run, fullgraph=True)


def rivals(f: ConvDynamics, *, few: bool) -> dict[str, Contender]:
    """Return the other libraries by name, with f as usually written and, unless `few`, with ours, to isolate the solver."""
    found: dict[str, Contender] = {"torchdiffeq": torchdiffeq_direct, "torchdiffeq autocast": torchdiffeq_autocast}
    found |= {"torchode": torchode_per_image} | ({} if few else {"torchdiffeq adjoint": torchdiffeq_adjoint})
    usual = AsUsual(f)
    as_usual = {name: lambda _, y0, solve=solve: solve(usual, y0.contiguous()) for name, solve in found.items()}
    isolated = {} if few else {f"{name}, our f": found[name] for name in ("torchdiffeq", "torchode")}
    return as_usual | isolated
