"""A long solve goes back in parts of the batch: the gradient is the same, and little more than a part's tape is ever alive."""

import weakref
from typing import ClassVar

import pytest
import torch
from torch import nn

from nodestill.ode import GradientMode, Method, Solver, StepControl, gradients, solve
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


@pytest.mark.parametrize("control", StepControl)
@pytest.mark.parametrize("kept_bytes", [2**30, 0])
def test_parts_give_the_same_gradient(monkeypatch, control, kept_bytes):
    f, y0 = Net(), spread()
    solver = Solver(rtol=1e-7, atol=1e-7, step_control=control, kept_bytes=kept_bytes)
    assert solve(f, y0, 0.0, 1.5, solver).stats.rejected.sum() > 0  # steps that only some accepted are among them
    for one, other in zip(*both(monkeypatch, f, y0, solver, times=(0.4, 1.0)), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("mode", [GradientMode.DIRECT, GradientMode.RECOMPUTE])
def test_parts_of_given_steps_and_of_what_was_not_kept(monkeypatch, mode):
    f, y0 = Net(), spread(5)
    for solver in (Solver(Method.RK4, steps=7, gradient=mode), Solver(gradient=mode)):
        whole, parts = both(monkeypatch, f, y0, solver, lambda solution: solution.y1.square().sum())
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
    assert torch.cat([part.index for part in parts]).tolist() == list(range(10, 17))
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
    solve(f, torch.ones(batch, 2, dtype=torch.float64), 0.0, 1.0, Solver(Method.RK4, steps=steps)).y1.sum().backward()
    return f


def test_no_more_than_one_parts_tape_of_one_step_is_alive(monkeypatch):
    split(monkeypatch)
    f = backward_of(steps=5)
    assert f.most == 4 * PART  # the stages of a step
    assert f.seen == [PART] * (4 * 5 * 3)  # each image's evaluations once


def test_where_steps_are_not_parted_no_more_than_one_steps_tape_is_alive(monkeypatch):
    split(monkeypatch, images=6)
    assert backward_of(steps=5).most == 4 * 6


def test_a_short_solve_goes_back_in_one_go(monkeypatch):
    split(monkeypatch, few_steps=4)
    assert set(backward_of(steps=4).seen) == {6}
    assert set(backward_of(steps=5).seen) == {PART}


def test_a_part_is_no_smaller_than_fills_the_processor():
    """64 x 8 x 8 in float32: 32 images are half a megabyte. Of small states the batch is one part, of larger ones 32 images."""
    trace = Trace(128, 0, keeps_evaluations=False)
    trace.steps = 100
    found = [gradients._at_once(trace, torch.empty(128, channels, 8, 8)) for channels in (1, 16, 64, 256)]
    assert found == [2048, 128, 32, 32]
    trace.steps = 4
    assert gradients._at_once(trace, torch.empty(128, 64, 8, 8)) == 128
