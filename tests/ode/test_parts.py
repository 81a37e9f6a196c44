"""A long solve goes back in parts of the batch: the gradient is the same, and little more than a part's tape is ever alive."""

import weakref
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from torch import nn

from nodestill.ode import GradientMode, Method, Solver, StepControl, StepRecord, gradients, solve
from nodestill.ode.trace import Taken, Trace
from ode_oracles import ConvNet, Net, everything, spread
from ode_oracles import gradients as gradients_of

PART = 2
RECOMPUTE = Solver(rtol=1e-7, atol=1e-7)


def split(monkeypatch, images=PART, few_steps=0):
    """Have steps gone back through by so many images at a time."""
    monkeypatch.setattr(gradients, "_PART_IMAGES", images)
    monkeypatch.setattr(gradients, "_PART_BYTES", 0)
    monkeypatch.setattr(gradients, "_FEW_STEPS", few_steps)


def both(monkeypatch, f, y0, solver, loss=everything, **options):
    """Return the gradients in one go and in parts."""
    split(monkeypatch, images=len(y0))
    whole = gradients_of(f, y0, solver, loss, **options)[1]
    split(monkeypatch)
    return whole, gradients_of(f, y0, solver, loss, **options)[1]


@pytest.mark.parametrize("kept_bytes", [2**30, 0])
def test_parts_give_the_same_gradient(monkeypatch, kept_bytes):
    f, y0 = Net(), spread()
    solver = Solver(rtol=1e-7, atol=1e-7, kept_bytes=kept_bytes)
    assert solve(f, y0, 0.0, 1.5, solver).stats.rejected.sum() > 0  # steps that only some accepted are among them
    for one, other in zip(*both(monkeypatch, f, y0, solver, times=(0.4, 1.0)), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-11, atol=1e-11)


def equal(steps, batch, t1):
    """Steps of one size, as if they had been chosen: given ones never look at an error."""
    return StepRecord(torch.full((steps, batch), t1 / steps, dtype=torch.float64))


def test_parts_of_steps_taken_again(monkeypatch):
    end = lambda solution: solution.y1.square().sum()  # noqa: E731
    whole, parts = both(monkeypatch, Net(), spread(5), Solver(), end, replay=equal(7, 5, 1.5))
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_parts_of_pictures(monkeypatch, layout):
    y0 = torch.randn(5, 2, 4, 3, dtype=torch.float64).contiguous(memory_format=layout)
    whole, parts = both(monkeypatch, ConvNet(), y0, RECOMPUTE, lambda solution: solution.y1.square().sum())
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("images", "sizes"), [(7, [7]), (4, [4, 3]), (3, [3, 2, 2]), (2, [2, 2, 2, 1]), (1, [1] * 7)])
def test_every_image_is_in_one_part(images, sizes):
    zero, y = torch.zeros(7, dtype=torch.float64), torch.randn(7, 2)
    parts = list(Taken(torch.arange(10, 17), zero, zero, y, (), rejections=False).parts(images))
    assert [len(part.t) for part in parts] == sizes
    assert torch.cat([part.positions for part in parts]).tolist() == list(range(10, 17))
    torch.testing.assert_close(torch.cat([part.y for part in parts]), y, rtol=0, atol=0)


class Token:
    """Lives as long as the tape of one evaluation."""

    def __init__(self, images):
        self.images = images


class Decay(torch.autograd.Function):
    """-w * y, whose tape can be seen to be alive."""

    alive: ClassVar[weakref.WeakSet] = weakref.WeakSet()

    @staticmethod
    def forward(ctx, w, y):
        ctx.save_for_backward(w, y)
        ctx.token = Token(len(y))
        Decay.alive.add(ctx.token)
        return -w * y

    @staticmethod
    def backward(ctx, grad):
        w, y = ctx.saved_tensors
        return -(grad * y).sum(), -grad * w


class Watched(nn.Module):
    """-w * y, which notes the images of each evaluation with a tape, and the most whose tapes are alive at once."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
        self.seen, self.most = [], 0

    def forward(self, t, y):
        if not torch.is_grad_enabled():
            return -self.w * y
        slope = Decay.apply(self.w, y)
        self.seen.append(len(y))
        self.most = max(self.most, sum(token.images for token in Decay.alive))
        return slope


def backward_of(steps, batch=6):
    f = Watched()
    y0 = torch.ones(batch, 2, dtype=torch.float64)
    solve(f, y0, 0.0, 1.0, Solver(Method.BOSH3), replay=equal(steps, batch, 1.0)).y1.sum().backward()
    return f


def test_no_more_than_one_parts_tape_of_one_step_is_alive(monkeypatch):
    split(monkeypatch)
    f = backward_of(steps=5)
    assert f.most == 3 * PART  # the stages of a step
    assert f.seen == [PART] * (3 * 5 * 3)  # each image's evaluations once


def test_where_steps_are_not_parted_no_more_than_one_steps_tape_is_alive(monkeypatch):
    split(monkeypatch, images=6)
    assert backward_of(steps=5).most == 3 * 6


def test_a_short_solve_goes_back_in_one_go(monkeypatch):
    split(monkeypatch, few_steps=4)
    assert set(backward_of(steps=4).seen) == {6}
    assert set(backward_of(steps=5).seen) == {PART}


def test_a_part_is_no_smaller_than_fills_the_processor():
    """64 x 8 x 8 in float32: 32 images are half a megabyte. Of small states the batch is one part, of larger ones 32 images."""
    trace = Trace(128, 0, keeps_evaluations=False)
    trace.steps = 100
    found = [gradients._at_once(Solver(), trace, torch.empty(128, channels, 8, 8)) for channels in (1, 16, 64, 256)]
    assert found == [2048, 128, 32, 32]
    trace.steps = 4
    assert gradients._at_once(Solver(), trace, torch.empty(128, 64, 8, 8)) == 128


class Coupled(nn.Module):
    """An f that joins the images of its batch, which only shared steps allow."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

    def forward(self, t, y):
        return -self.w * (y + y.mean(0, keepdim=True))


@pytest.mark.parametrize("solver", [Solver(Method.RK4, steps=9), Solver(step_control=StepControl.SHARED, rtol=1e-8, atol=1e-8)])
def test_an_f_that_joins_images_keeps_its_gradient_under_shared_steps(monkeypatch, solver):
    split(monkeypatch)
    f, y0 = Coupled(), spread(7).requires_grad_()
    solution = solve(f, y0, 0.0, 1.0, replace(solver, gradient=GradientMode.RECOMPUTE))
    found = torch.autograd.grad(solution.y1.square().sum(), [y0, f.w])
    matrix = -f.w * (torch.eye(7, dtype=torch.float64) + 1 / 7)
    expected = torch.autograd.grad((torch.linalg.matrix_exp(matrix) @ y0).square().sum(), [y0, f.w])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
