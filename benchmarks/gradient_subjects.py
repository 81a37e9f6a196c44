"""What the benchmarks of gradients and of independence differentiate, and by whom.

A subject is start → encode → solve with f → loss, in a dtype. Rivals run as their documentation writes them, at a tolerance.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contenders import ByRival, Contender
from nodestill.models import Activation, ConvDynamics, Norm
from solve_speed import workload
from trained import test_images, trained


class Subject(NamedTuple):
    """What is differentiated: start → encode → solve with f → loss."""

    f: ConvDynamics
    start: Tensor
    encode: nn.Module
    loss: Callable[[Tensor], Tensor]


class Found(NamedTuple):
    """The end state and the gradients of the loss with respect to the start and to the parameters of f."""

    state: Tensor
    start: Tensor
    weights: list[Tensor]


def random_subject(horizon: float, images: int, dtype: torch.dtype, activation: Activation) -> Subject:
    """Return the workload of `solve_speed.py`, with group norm and the given activation."""
    f, y0, weights = workload(64, horizon, Norm.GROUP, images)
    f.activation = activation
    return Subject(f.to(dtype), y0.to(dtype), nn.Identity(), lambda y1: (y1 * weights.to(dtype)).sum())


def trained_subject(horizon: float, images: int, dtype: torch.dtype, data: Path) -> Subject:
    """Return a trained student on test images, with the sum of their cross-entropies."""
    model = copy.deepcopy(trained(horizon, Norm.GROUP, data)).to(dtype)
    pixels, labels = test_images(data, images)
    encode = nn.Module()
    encode.forward = model.encode
    return Subject(
        model.dynamics, pixels.to(dtype), encode, lambda y1: F.cross_entropy(model.head(y1), labels, reduction="sum")
    )


def gradients(contender: Contender, subject: Subject) -> Found:
    """Solve and differentiate."""
    start = subject.start.detach().requires_grad_()
    y1 = contender(subject.f, subject.encode(start))
    of_start, *of_weights = torch.autograd.grad(subject.loss(y1), [start, *subject.f.parameters()])
    return Found(y1.detach(), of_start, of_weights)


def rivals(tolerance: float) -> dict[str, Contender]:
    """Return the other libraries' solves by name, as their documentation writes them."""
    import torchdiffeq
    import torchode

    def by_torchdiffeq(solve: Callable) -> Contender:
        return lambda f, y0: solve(ByRival(f), y0, torch.tensor([0.0, f.t1]), rtol=tolerance, atol=tolerance)[-1]

    def by_torchode(through_sizes: bool) -> Contender:
        def run(f: ConvDynamics, y0: Tensor) -> Tensor:
            term = torchode.ODETerm(lambda t, y: f(t.reshape(-1, 1, 1, 1).to(y.dtype), y.view(y0.shape)).flatten(1))
            controller = torchode.IntegralController(tolerance, tolerance, term=term)
            method = torchode.AutoDiffAdjoint(
                torchode.Dopri5(term), controller, backprop_through_step_size_control=through_sizes
            )
            times = torch.tensor([[0.0, f.t1]], dtype=y0.dtype).expand(len(y0), 2)
            return method.solve(torchode.InitialValueProblem(y0=y0.flatten(1), t_eval=times)).ys[:, -1].view(y0.shape)

        return run

    return {
        "torchdiffeq": by_torchdiffeq(torchdiffeq.odeint),
        "torchdiffeq adjoint": by_torchdiffeq(torchdiffeq.odeint_adjoint),
        "torchode": by_torchode(True),  # its default
        "torchode, sizes held constant": by_torchode(False),
    }


def cell(row: dict, name: str) -> str:
    """Return a value of a row as it stands in a table."""
    value = row.get(name)
    if value is None:
        return "failed" if "failed" in row else "–"
    if name.startswith("other_"):
        return f"{value} of {row['images']}"
    return f"{value:.4f}" if "cosine" in name else f"{value:g}" if isinstance(value, int) or value == 0 else f"{value:.1e}"
