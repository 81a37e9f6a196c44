"""Plain, slow, obviously correct references for `nodestill.ode`, and right-hand sides to solve.

Coefficients come from SciPy, derivatives from automatic differentiation through every operation, sizes from the textbook.
"""

import math
from fractions import Fraction
from itertools import combinations_with_replacement
from math import prod

import torch
from scipy.integrate import RK45
from torch import nn

from nodestill.ode import GradientMode, Method, solve

EXACT_MODES = [GradientMode.DIRECT, GradientMode.RECOMPUTE]  # those that differentiate the steps taken
METHODS = [method for method in Method if method.value != "reversible"]  # those that are given by their tableau alone
A, B, C, E = RK45.A.tolist(), RK45.B.tolist(), RK45.C.tolist(), RK45.E.tolist()


class Field(nn.Module):
    """f given as a function. Checks what it is called with, and writes down the times and how many images each call had."""

    def __init__(self, function, dtype=torch.float64):
        super().__init__()
        self.function, self.dtype, self.times, self.calls = function, dtype, [], []

    def forward(self, t, y):
        assert t.shape == (len(y), *[1] * (y.dim() - 1))
        assert len(y) > 0
        assert t.dtype == y.dtype == self.dtype
        self.times += t.flatten().tolist()
        self.calls.append(len(y))
        return self.function(t, y)


class Net(nn.Module):
    """A small f with weights and time in it. States turn, the faster the farther out: images need very different steps."""

    def __init__(self, width=3, hidden=5, dtype=torch.float64):
        super().__init__()
        self.first = nn.Linear(width, hidden, dtype=dtype)
        self.second = nn.Linear(hidden, width, dtype=dtype)

    def forward(self, t, y):
        assert len(y) > 0  # many layers cannot handle a batch of none
        return (
            self.second(torch.tanh(self.first(y) + torch.sin(3 * t))) + (y - y.roll(1, 1)) * y.norm(dim=1, keepdim=True).cos()
        )


class ConvNet(nn.Module):
    """A small convolutional f."""

    def __init__(self, channels=2, dtype=torch.float64):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, dtype=dtype)

    def forward(self, t, y):
        return torch.tanh(self.conv(y)) * torch.cos(t) - y.abs().amax((1, 2, 3), keepdim=True) * y


def spread(batch=4, width=3, dtype=torch.float64):
    """Initial states that need step sizes an order of magnitude apart."""
    generator = torch.Generator().manual_seed(1)
    scale = torch.logspace(-1, 0.7, batch, dtype=dtype)[:, None]
    return torch.randn(batch, width, dtype=dtype, generator=generator) * scale


def rooted_trees(order):
    """All rooted trees with `order` vertices; a tree is the tuple of the subtrees at its root."""
    if order == 1:
        return [()]
    trees = set()
    for split in _partitions(order - 1):
        trees |= _forests(split)
    return sorted(trees)


def _partitions(total, most=None):
    most = total if most is None else most
    if total == 0:
        return [()]
    return [(n, *rest) for n in range(min(total, most), 0, -1) for rest in _partitions(total - n, n)]


def _forests(sizes):
    forests = {()}
    for size in set(sizes):
        groups = combinations_with_replacement(rooted_trees(size), sizes.count(size))
        forests = {tuple(sorted(f + g)) for g in groups for f in forests}
    return forests


def vertices(tree):
    return 1 + sum(map(vertices, tree))


def density(tree):
    return vertices(tree) * prod(map(density, tree))


def elementary_weight(tree, a, b):
    """sum_i b_i prod over subtrees of g_i, where g_i of a tree is sum_j a_ij prod over its subtrees of g_j."""
    return sum(b_i * prod((_inner(sub, a, i) for sub in tree), start=Fraction(1)) for i, b_i in enumerate(b))


def _inner(tree, a, i):
    return sum((a_ij * prod((_inner(s, a, j) for s in tree), start=Fraction(1)) for j, a_ij in enumerate(a[i])), Fraction(0))


def step(f, t, y, h, a=A, b=B, c=C, e=E):
    """One Runge-Kutta step and its error estimate (with f at the end of the step as last stage)."""
    k = []
    for row, node in zip(a, c):
        k.append(f(t + node * h, y + h * sum((w * slope for w, slope in zip(row, k)), torch.zeros_like(y))))
    y_next = y + h * sum(w * slope for w, slope in zip(b, k))
    if not e:
        return y_next, None
    k.append(f(t + h, y_next))
    return y_next, h * sum(w * slope for w, slope in zip(e, k))


def times_of(f, y):
    """Call f, which wants one time per image, with one time for all."""
    return lambda t, x: f(torch.full((len(y), *[1] * (y.dim() - 1)), float(t), dtype=y.dtype), x)


def rms(value):
    return float(value.square().mean().sqrt())


def adaptive(f, y, t0, t1, rtol, atol, first_step):
    """Solve for one state, all of it under one step size. Returns the end, the accepted sizes, the rejections, the error."""
    f, t, h, sizes, rejected, total = times_of(f, y), t0, first_step, [], 0, 0.0
    while t < t1:
        left = t1 - t
        h = left if h >= left else left / 2 if 2 * h >= left else h
        y_next, error = step(f, t, y, h)
        ratio = rms(error / (atol + rtol * torch.maximum(y.abs(), y_next.abs())))
        if ratio <= 1:
            t, y, total = (t1 if h == left else t + h), y_next, total + rms(error)
            sizes.append(h)
        else:
            rejected += 1
        mantissa, exponent = math.frexp(h * min(10.0, max(0.2, 0.9 * max(ratio, 1e-10) ** -0.2)))
        h = math.ldexp(math.floor(mantissa * 32) / 32, exponent)
    return y, sizes, rejected, total


def along(f, y0, t0, sizes, **tableau):
    """Take the given steps, image by image, with autograd through every operation. Returns the ends and the errors."""
    ends, errors = [], []
    for i in range(len(y0)):
        y, t, total = y0[i : i + 1], t0, y0.new_zeros(())
        for h in sizes[:, i].tolist():
            if h == 0:
                continue
            y, error = step(times_of(f, y), t, y, h, **tableau)
            t += h
            total = total + (error.square().mean().sqrt() if error is not None else 0)
        ends.append(y)
        errors.append(total)
    return torch.cat(ends), torch.stack(errors)


def everything(solution):
    """A loss that each result takes part in."""
    return solution.y1.square().sum() + solution.at_times.sin().sum() + 30 * (solution.error * spread(4)[:, 0]).sum()


def gradients(f, y0, solver, loss=everything, **options):
    y0 = y0.clone().requires_grad_()
    solution = solve(f, y0, 0.0, 1.5, solver, **options)
    return solution, torch.autograd.grad(loss(solution), [y0, *f.parameters()])
