"""What is kept for the backward pass: no more than was asked for, and what is made again is what was."""

import gc
import math

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from nodestill.ode import GradientMode, Method, Solver, StepControl, StepRecord, solve
from nodestill.ode.trace import Taken, Trace
from ode_oracles import EXACT_MODES, ConvNet, Net, gradients, spread


def filled(steps, budget, targets=1):
    trace = Trace(2, budget, keeps_evaluations=False)
    zero = torch.zeros(2, dtype=torch.float64)
    for _ in range(targets):
        trace.begin()
        for _ in range(steps):
            trace.add(Taken(None, zero, zero, torch.zeros(2, 8), (), rejections=False))
    return [[taken.state is not None for taken in stretch] for stretch in trace.stretches]


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 10, 37, 100, 1000])
def test_without_a_budget_states_grow_as_the_square_root(steps):
    (kept,) = filled(steps, 0)
    assert len(kept) == steps
    assert kept[0]
    assert 0.5 * math.sqrt(steps) <= sum(kept) <= math.sqrt(steps) + 1
    longest = max(len(run) for run in "".join("s" if k else "-" for k in kept).split("s"))
    assert longest + 1 <= 2 * math.sqrt(steps) + 1


def test_within_the_budget_all_are_kept_and_beyond_it_no_fewer_than_needed():
    state = torch.zeros(2, 8).nbytes
    assert all(filled(50, 50 * state)[0])
    (kept,) = filled(51, 50 * state)
    assert sum(kept) == 26


def test_each_target_keeps_its_first_state():
    assert all(stretch[0] for stretch in filled(30, 0, targets=4))


SPARSE = pytest.mark.parametrize("kept_bytes", [0, 1000], ids=["nothing", "little"])


def exact_and_sparse(f, y0, kept_bytes, solver=None, **options):
    solver = solver or Solver(rtol=1e-7, atol=1e-7)
    exact = gradients(f, y0, replace_gradient(solver, GradientMode.DIRECT, 2**30), **options)[1]
    return exact, gradients(f, y0, replace_gradient(solver, GradientMode.RECOMPUTE, kept_bytes), **options)[1]


def replace_gradient(solver, gradient, kept_bytes):
    return Solver(**{**vars(solver), "gradient": gradient, "kept_bytes": kept_bytes})


@SPARSE
@pytest.mark.parametrize("control", StepControl)
def test_states_made_again_give_the_same_gradient(kept_bytes, control):
    solver = Solver(rtol=1e-7, atol=1e-7, step_control=control)
    f, y0 = Net(), spread()
    solution = solve(f, y0, 0.0, 1.5, solver)
    assert solution.stats.rejected.sum() > 0  # steps that only some accepted are among them
    attempts = int((solution.stats.accepted + solution.stats.rejected).max())
    assert attempts * y0.nbytes > 1000  # more than may be kept
    exact, sparse = exact_and_sparse(f, y0, kept_bytes, solver, times=(0.4, 1.0))
    for one, other in zip(exact, sparse, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-10)


@SPARSE
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_states_of_pictures_are_made_again(kept_bytes, layout):
    y0 = torch.randn(5, 2, 4, 3, dtype=torch.float64).mul(torch.logspace(-1, 0.5, 5)[:, None, None, None])
    f, y0 = ConvNet(), y0.contiguous(memory_format=layout)
    exact, sparse = exact_and_sparse(f, y0, kept_bytes, loss=lambda solution: solution.y1.square().sum())
    for one, other in zip(exact, sparse, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-10)


@SPARSE
def test_given_steps_are_made_again(kept_bytes):
    f, y0 = Net(), spread()
    record = solve(f, y0, 0.0, 1.5, Solver(rtol=1e-7, atol=1e-7)).steps
    for options in ({"replay": record}, {"solver": Solver(Method.RK4, steps=23), "times": (0.7,)}):
        exact, sparse = exact_and_sparse(f, y0, kept_bytes, **options, loss=lambda solution: solution.y1.square().sum())
        for one, other in zip(exact, sparse, strict=True):
            torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-10)


@SPARSE
def test_a_record_with_gaps_is_one_without(kept_bytes):
    """Who stands still first and moves later takes the same steps as one who moves first."""
    f, y0, solver = Net(), spread(2), Solver(kept_bytes=kept_bytes)
    gaps = StepRecord(torch.tensor([[0.5, 0.0], [0.25, 0.0], [0.5, 0.5], [0.25, 1.0]], dtype=torch.float64))
    dense = StepRecord(torch.tensor([[0.5, 0.5], [0.25, 1.0], [0.5, 0.0], [0.25, 0.0]], dtype=torch.float64))
    found, expected = (
        gradients(f, y0, solver, replay=record, loss=lambda solution: solution.y1.square().sum())[1] for record in (gaps, dense)
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_states_made_again_lie_in_memory_as_they_did():
    layouts = set()

    class Seen(ConvNet):
        def forward(self, t, y):
            layouts.add(y[:1].is_contiguous(memory_format=torch.channels_last))
            return super().forward(t, y)

    y0 = torch.randn(5, 2, 4, 3, dtype=torch.float64).mul(torch.logspace(-1, 0.5, 5)[:, None, None, None])
    y0 = y0.contiguous(memory_format=torch.channels_last).requires_grad_()
    solve(Seen(), y0, 0.0, 1.5, Solver(rtol=1e-7, atol=1e-7, kept_bytes=0)).y1.sum().backward()
    assert layouts == {True}


def test_a_failed_neighbour_changes_nothing_that_is_made_again():
    class Exploding(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Net()

        def forward(self, t, y):
            return torch.where(y.abs().amax(1, keepdim=True) > 50, y**3, self.inner(t, y))

    y0 = torch.cat([spread(), torch.full((1, 3), 60.0, dtype=torch.float64)])
    f, solver = Exploding(), Solver(rtol=1e-7, atol=1e-7, kept_bytes=0)
    together = solve(f, y0.requires_grad_(), 0.0, 1.5, solver, raises=False)
    (found,) = torch.autograd.grad(together.y1[:4].square().sum(), y0)
    assert [status != 0 for status in together.status.tolist()] == [False] * 4 + [True]
    healthy = y0[:4].detach().requires_grad_()
    (expected,) = torch.autograd.grad(solve(f, healthy, 0.0, 1.5, solver).y1.square().sum(), healthy)
    torch.testing.assert_close(found[:4], expected, rtol=1e-9, atol=1e-10)
    assert (found[4] == 0).all()


def test_making_again_costs_one_more_forward_pass():
    calls = 0

    class Counted(Net):
        def forward(self, t, y):
            nonlocal calls
            calls += 1
            return super().forward(t, y)

    f, y0, counts = Counted(), spread(1).requires_grad_(), []
    for kept_bytes in (2**30, 0):
        solution = solve(f, y0, 0.0, 1.5, Solver(rtol=1e-9, atol=1e-9, kept_bytes=kept_bytes))
        calls = 0
        solution.y1.sum().backward()
        counts.append(calls)
    steps = int(solution.stats.accepted[0])
    assert steps > 20
    assert counts[0] == 6 * steps
    assert 11 * steps <= counts[1] < 12 * steps  # all but those of each stretch's last step twice


class Watched(nn.Module):
    """-rate * y, which counts the tensors of its state's shape that are alive, or larger, at every 23rd call."""

    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
        self.most, self.calls = 0, 0

    def forward(self, t, y):
        self.calls += 1
        if self.calls % 23 == 0:
            self.most = max(
                self.most, sum(type(x) is torch.Tensor and x.dim() == 2 and x.numel() >= y.numel() for x in gc.get_objects())
            )
        return -self.rate * y


def test_the_adjoint_keeps_nothing_that_grows():
    assert (
        most_tensors(GradientMode.ADJOINT, 40) <= most_tensors(GradientMode.ADJOINT, 8) + 3
    )  # what is sampled varies a little


def test_without_a_budget_recompute_holds_few_states_at_any_moment():
    few, many = most_tensors(GradientMode.RECOMPUTE, 16), most_tensors(GradientMode.RECOMPUTE, 144)
    assert many - few <= 2 * (16 - 4) + 4  # about sqrt(steps) kept, and as many made again


def most_tensors(mode, steps):
    """Return the largest number of state-shaped tensors that existed at once during the backward pass."""
    f, y0 = Watched(), torch.zeros(2, 333, dtype=torch.float64, requires_grad=True)
    y1 = solve(f, y0, 0.0, 1.0, Solver(Method.MIDPOINT, steps=steps, gradient=mode, kept_bytes=0)).y1
    f.most = 0
    y1.sum().backward()
    return f.most


class Listing(Net):
    """Lists the memory of every state that it is asked about."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, t, y):
        self.seen.append(StorageWeakRef(y.untyped_storage()))
        return super().forward(t, y)

    def alive(self):
        return len({memory.cdata for memory in self.seen if not memory.expired()})


@pytest.mark.parametrize("mode", EXACT_MODES, ids=lambda mode: mode.value)
@pytest.mark.parametrize("times_alone", [False, True])
def test_a_backward_pass_frees_what_was_kept_unless_it_may_come_again(mode, times_alone):
    """The loss lives on, as where it is logged; so do the results."""
    f, y0 = Listing(), spread().requires_grad_()
    solution = solve(f, y0, 0.0, 1.5, Solver(rtol=1e-7, atol=1e-7, gradient=mode), times=(0.4,))
    loss = solution.at_times.sum() + (0.0 if times_alone else solution.y1.sum())
    assert f.alive() > 20
    loss.backward(retain_graph=True)
    assert f.alive() > 20
    loss.backward()
    assert f.alive() == 1  # y0
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()
