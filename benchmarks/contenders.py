"""Ways to solve the same initial value problem with the same f: ours, and those of other libraries.

Each contender is a function from (f, y0) to the state at t1. All rivals run as their documentation says, at the same
tolerances; `autocast` is the one-line change that a user would try first.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nodestill.models import ConvDynamics
from nodestill.ode import GradientMode, Method, Solver, StepRecord, calibrated, solve
from nodestill.precision import Precision

Contender = Callable[[ConvDynamics, Tensor], Tensor]
TOLERANCE = 1e-3


class AsUsual(nn.Module):
    """The same f as it is usually written: the time as one more channel, PyTorch's own convolution, norm and ReLU.

    It shares the parameters of a `ConvDynamics`, so that gradients can be compared.
    """

    def __init__(self, f: ConvDynamics) -> None:
        super().__init__()
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


def our_contenders(f: ConvDynamics, y0: Tensor) -> dict[str, Contender]:
    """Return our solves by name; first steps are calibrated on the first 32 images, replays follow a recorded solve."""
    found: dict[str, Contender] = {"ours dopri5, probed": ours(Solver())}
    for method in (Method.DOPRI5, Method.BOSH3):
        plain = calibrated(f, y0[:32], 0.0, f.t1, Solver(method, TOLERANCE, TOLERANCE))
        for precision in (Precision.FLOAT32, Precision.BFLOAT16):
            for gradient in (GradientMode.DIRECT, GradientMode.RECOMPUTE):
                solver = replace(plain, precision=precision, gradient=gradient)
                found[f"ours {method.value}, {precision.value}, {gradient.value}"] = ours(solver)
    with torch.no_grad():
        record = solve(f, y0, 0.0, f.t1, calibrated(f, y0[:32], 0.0, f.t1, Solver())).steps
    found["ours dopri5, bfloat16, direct, replayed"] = ours(
        Solver(gradient=GradientMode.DIRECT, precision=Precision.BFLOAT16), record
    )
    shared = Solver(step_control=type(Solver().step_control)("shared"))
    return found | {"ours dopri5, probed, shared control": ours(shared)}


def rivals(f: ConvDynamics) -> dict[str, Contender]:
    """Return the other libraries by name, each with f as usually written and, to isolate the solver, with ours."""
    found: dict[str, Contender] = {
        "torchdiffeq": torchdiffeq_direct,
        "torchdiffeq adjoint": torchdiffeq_adjoint,
        "torchdiffeq autocast": torchdiffeq_autocast,
        "torchode": torchode_per_image,
    }
    usual = AsUsual(f)
    as_usual = {name: lambda _, y0, solve=solve: solve(usual, y0.contiguous()) for name, solve in found.items()}
    return as_usual | {f"{name}, our f": solve for name, solve in found.items()}
