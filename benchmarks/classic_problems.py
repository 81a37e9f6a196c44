"""Five initial value problems from the literature on solvers, and a trained one, each with a reference and its doubt.

The classic ones are autonomous, in float64. Two have a batch of sixteen starts or orbits, which differ in what they cost.
References come from a closed form, or from SciPy's DOP853 at 1e-13, and are compared with another method.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn

from nodestill.models import Norm

_IMAGES = 16


@dataclass(frozen=True)
class Problem:
    """y' = f(t, y), y(0) = y0, to be solved to t1 at some tolerances, and what comes out."""

    name: str
    f: nn.Module
    y0: Tensor
    t1: float
    tolerances: tuple[float, ...]
    reference: Tensor  # float64
    doubt: float  # relative distance of the reference from that of another method or tolerance

    def error(self, y1: Tensor) -> float:
        """Return the relative error of an end state: root mean square over root mean square, the whole batch together."""
        return _relative(y1.double(), self.reference)


class Oscillator(nn.Module):
    """y'' = -y as a system: the solution is a rotation."""

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return torch.stack([y[:, 1], -y[:, 0]], 1)


class LotkaVolterra(nn.Module):
    """Prey and predators.

    Source:
        Hull, Enright, Fellen, Sedgwick 1972, "Comparing numerical methods for ordinary differential equations" (DETEST), B1:
        from (1, 3); and from fifteen points nearer to the equilibrium (1, 1).
    """

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        prey, predators = y.unbind(1)
        both = prey * predators
        return torch.stack([2 * (prey - both), both - predators], 1)


class TwoBodies(nn.Module):
    """An orbit around a fixed mass: (x, y, x', y').

    Source:
        DETEST, class D: eccentricities 0.1, 0.3, 0.5, 0.7 and 0.9 (D5), from the pericentre, to t = 20.
    """

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        place, speed = y.chunk(2, 1)
        return torch.cat([speed, -place / place.square().sum(1, keepdim=True) ** 1.5], 1)


class Pleiades(nn.Module):
    """Seven stars in a plane, of masses 1 to 7, with close encounters: (x, y, x', y') of seven each.

    Source:
        Hairer, Norsett, Wanner 1993, Solving ODEs I, section II.10, eq. 10.3; to t = 3.
    """

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        place, speed = y.view(len(y), 2, 2, 7).unbind(1)
        apart = place[:, :, None] - place[:, :, :, None]
        cubed = apart.square().sum(1, keepdim=True).add(torch.eye(7, dtype=y.dtype)) ** 1.5  # no star pulls itself
        pull = torch.arange(1.0, 8.0, dtype=y.dtype) * apart / cubed
        return torch.cat([speed, pull.sum(-1)], 1).flatten(1)


class VanDerPol(nn.Module):
    """y'' = mu (1 - y^2) y' - y with mu = 20: slow stretches, where stability limits the step, between sudden jumps.

    Source:
        Hairer, Wanner 1996, Solving ODEs II, section IV.1, eq. 1.5', in unscaled time.
    """

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        place, speed = y.unbind(1)
        return torch.stack([speed, 20 * (1 - place * place) * speed - place], 1)


def classic_problems() -> list[Problem]:
    """Return the five classic problems with their references."""
    angle = torch.tensor(20.0, dtype=torch.float64)
    rotated = torch.stack([angle.cos(), -angle.sin()])[None]
    orbits, predators = torch.linspace(0.1, 0.9, _IMAGES).double(), torch.linspace(1.125, 3, _IMAGES).double()
    nothing, one = torch.zeros_like(orbits), torch.ones_like(orbits)
    starts = torch.stack([1 - orbits, nothing, nothing, ((1 + orbits) / (1 - orbits)).sqrt()], 1)
    return [
        _problem("Harmonic oscillator", Oscillator(), _state(1, 0), 20.0, rotated),
        _problem("Lotka-Volterra, 16 starts", LotkaVolterra(), torch.stack([one, predators], 1), 20.0),
        _problem("Two bodies, 16 orbits", TwoBodies(), starts, 20.0),
        _problem("Pleiades", Pleiades(), _stars(), 3.0),
        _problem("Van der Pol, mu = 20", VanDerPol(), _state(2, 0), 40.0),
    ]


def _state(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def _stars() -> Tensor:
    places = [3, 3, -1, -3, 2, -2, 2], [3, -3, 2, 0, 0, -4, 4]
    speeds = [0, 0, 0, 0, 0, 1.75, -1.5], [0, 0, 0, -1.25, 1, 0, 0]
    return _state(*places[0], *places[1], *speeds[0], *speeds[1])


def _problem(name: str, f: nn.Module, y0: Tensor, t1: float, exact: Tensor | None = None) -> Problem:
    """Return a problem with the reference of each start, solved alone."""
    best = torch.cat([by_scipy(f, one, t1, "DOP853", 1e-13) for one in y0.split(1)])
    other = torch.cat([by_scipy(f, one, t1, "LSODA", 1e-12) for one in y0.split(1)]) if exact is None else exact
    return Problem(name, f, y0, t1, _tolerances(2, 9), best if exact is None else exact, _relative(other, best))


def _tolerances(first: int, last: int) -> tuple[float, ...]:
    return tuple(10.0**-k for k in range(first, last + 1))


def by_scipy(f: nn.Module, y0: Tensor, t1: float, method: str, tolerance: float) -> Tensor:
    """Return SciPy's end state, the batch flattened into one system."""

    def slope(t: float, y: np.ndarray) -> np.ndarray:
        time = torch.full((len(y0), *[1] * (y0.dim() - 1)), t, dtype=y0.dtype)
        return f(time, torch.from_numpy(y).to(y0.dtype).view(y0.shape)).flatten().numpy()

    with torch.no_grad():
        found = solve_ivp(slope, (0.0, t1), y0.flatten().numpy(), method, rtol=tolerance, atol=tolerance)
    return torch.from_numpy(found.y[:, -1]).view(y0.shape)


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def trained_problems(data: Path) -> list[Problem]:
    """Return what a trained NODE(1) solves for its first test images, in float32 and in float64; one reference serves both."""
    from trained import test_images, trained

    model = trained(1.0, Norm.GROUP, data)
    with torch.no_grad():
        y0 = model.encode(test_images(data, _IMAGES)[0]).contiguous()
    precise = trained(1.0, Norm.GROUP, data).dynamics.double().requires_grad_(False)
    best, other = (by_scipy(precise, y0.double(), 1.0, "DOP853", tolerance) for tolerance in (1e-10, 1e-8))
    cases = ("float32", model.dynamics, y0, 6), ("float64", precise, y0.double(), 7)
    return [
        Problem(f"Trained NODE(1), {kind}", f, start, 1.0, _tolerances(1, last), best, _relative(other, best))
        for kind, f, start, last in cases
    ]
