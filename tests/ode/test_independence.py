"""Nothing of one image depends on its neighbours with steps of its own; with shared steps all take the same ones."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nodestill.ode import Solution, Solver, Status, StepControl, StepRecord, solve
from ode_oracles import EXACT_MODES, ConvNet, Field, Net, adaptive, along, spread

SOLVER = Solver(rtol=1e-4, atol=1e-5)
SHARED = Solver(rtol=1e-4, atol=1e-5, step_control=StepControl.SHARED)


def results(solution, i):
    """Everything that a solve says of image i."""
    sizes = solution.steps.sizes[:, i]
    return solution.y1[i], solution.at_times[:, i], solution.error[i], sizes[sizes > 0]


def assert_same(one: Solution, i, other: Solution, j, tolerance=1e-12):
    assert [int(count[i]) for count in one.stats] == [int(count[j]) for count in other.stats]
    assert one.status[i] == other.status[j]
    for a, b in zip(results(one, i), results(other, j)):
        torch.testing.assert_close(a, b, rtol=tolerance * 1e3 if a.dim() == 0 else tolerance, atol=tolerance, equal_nan=True)


@pytest.mark.parametrize("first_step", [None, 0.02])
@pytest.mark.parametrize("times", [(), (0.7, 1.1)])
def test_alone_as_in_a_batch(first_step, times):
    f, y0 = Net().requires_grad_(False), spread(6)
    solver = Solver(rtol=1e-4, atol=1e-5, first_step=first_step)
    together = solve(f, y0, 0.0, 2.0, solver, times=times)
    assert together.stats.accepted.unique().numel() > 3
    assert together.stats.rejected.sum() > 0
    for i in range(6):
        assert_same(together, i, solve(f, y0[i : i + 1], 0.0, 2.0, solver, times=times), 0, tolerance=1e-11)


def test_alone_as_in_a_batch_in_float32():
    f, y0 = Net(dtype=torch.float32).requires_grad_(False), spread(6, dtype=torch.float32)
    solver = Solver(rtol=1e-3, atol=1e-3)
    together, agreeing = solve(f, y0, 0.0, 1.0, solver), 0
    for i in range(6):
        alone = solve(f, y0[i : i + 1], 0.0, 1.0, solver)
        if all(int(a[i]) == int(b) for a, b in zip(together.stats, alone.stats)):
            agreeing += 1
            torch.testing.assert_close(together.y1[i], alone.y1[0], rtol=1e-5, atol=1e-5)
    assert agreeing == 6  # a decision that flips would be counted here; with these none does


def test_rounding_of_another_batch_size_does_not_reach_the_steps():
    """f is disturbed as by a kernel that rounds differently: sizes are bit for bit the same, but where it crosses the grid."""
    net = Net(dtype=torch.float32).requires_grad_(False)
    noise = torch.Generator().manual_seed(0)
    f = Field(lambda t, y: net(t, y) * (1 + 1e-6 * torch.randn(y.shape, generator=noise)), torch.float32)
    y0 = spread(32, dtype=torch.float32).repeat(16, 1)
    sizes = solve(f, y0, 0.0, 1.5, Solver(rtol=1e-3, atol=1e-3)).steps.sizes
    first = sizes[:, :32].repeat(1, 16)
    same = float((sizes == first).all(0).double().mean())
    assert same > 0.8  # sizes of any float64 would be the same in one of 16, the first itself


@pytest.mark.parametrize("control", list(StepControl))
def test_steps_are_those_of_the_plain_loop(control):
    """One state is one image, or the whole batch if steps are shared: the RMS then runs over all of it."""
    f, y0 = Net().requires_grad_(False), spread(5)
    solver = Solver(rtol=1e-4, atol=1e-5, first_step=0.01, step_control=control)
    ours = solve(f, y0, 0.5, 2.0, solver)
    groups = [[0, 1, 2, 3, 4]] if control is StepControl.SHARED else [[i] for i in range(5)]
    for group in groups:
        y1, sizes, rejected, error = adaptive(f, y0[group], 0.5, 2.0, 1e-4, 1e-5, 0.01)
        torch.testing.assert_close(ours.y1[group], y1, rtol=1e-10, atol=1e-10)
        for i in group:
            found = ours.steps.sizes[:, i]
            torch.testing.assert_close(found[found > 0], torch.tensor(sizes, dtype=torch.float64), rtol=1e-8, atol=0)
            assert int(ours.stats.rejected[i]) == rejected
        if control is StepControl.PER_IMAGE:
            assert float(ours.error[group]) == pytest.approx(error, rel=1e-6)


def test_shared_steps_are_the_same_for_all():
    f, y0 = Net().requires_grad_(False), spread(5)
    solution = solve(f, y0, 0.0, 2.0, SHARED)
    assert torch.equal(solution.steps.sizes, solution.steps.sizes[:, :1].expand(-1, 5))
    for count in solution.stats:
        assert count.unique().numel() == 1
    assert solution.stats.rejected[0] > 0
    assert not torch.allclose(solve(f, y0[:1], 0.0, 2.0, SHARED).y1, solution.y1[:1], rtol=0, atol=1e-12)  # the price


@pytest.mark.parity
def test_shared_steps_cost_and_err_as_in_torchdiffeq():
    torchdiffeq = pytest.importorskip("torchdiffeq")
    f, y0, calls = Net().requires_grad_(False), spread(5), []

    def counted(t, y):
        calls.append(float(t))
        return f(t.expand(len(y), 1), y)

    theirs = torchdiffeq.odeint(counted, y0, torch.tensor([0.0, 2.0], dtype=torch.float64), rtol=1e-4, atol=1e-5)[-1]
    ours = solve(f, y0, 0.0, 2.0, SHARED)
    exact = solve(f, y0, 0.0, 2.0, Solver(rtol=1e-12, atol=1e-12, max_steps=10_000)).y1
    assert int(ours.stats.evaluations[0]) == pytest.approx(len(calls), rel=0.15)
    assert float((ours.y1 - exact).abs().max()) < 3 * float((theirs - exact).abs().max())


@settings(max_examples=10)
@given(order=st.permutations(range(5)), shared=st.booleans())
def test_order_of_the_batch_does_not_matter(order, shared):
    f, y0 = Net(), spread(5)
    with torch.no_grad():
        one = solve(f, y0, 0.0, 1.0, SHARED if shared else SOLVER)
        other = solve(f, y0[list(order)], 0.0, 1.0, SHARED if shared else SOLVER)
    for j, i in enumerate(order):
        assert_same(one, i, other, j, tolerance=1e-11)


def stiff(t, y):
    """Images that start above 5 oscillate a hundred times as fast."""
    return torch.where(y[:, :1].abs() + y[:, 1:].abs() > 5, 100.0, 1.0) * torch.stack([y[:, 1], -y[:, 0]], 1)


def test_a_stiff_neighbour_changes_nothing():
    calm, wild = torch.tensor([[1.0, 0.5]], dtype=torch.float64), torch.tensor([[9.0, 9.0]], dtype=torch.float64)
    alone, f = solve(Field(stiff), calm, 0.0, 1.0, SOLVER), Field(stiff)
    both = solve(f, torch.cat([calm, wild]), 0.0, 1.0, SOLVER)
    assert both.stats.accepted[1] > 20 * both.stats.accepted[0]
    assert_same(both, 0, alone, 0)
    assert f.calls.count(2) == int(both.stats.evaluations[0])  # afterwards nobody waits


def test_a_slow_neighbour_does_not_use_up_the_steps_of_another():
    def f(t, y):  # one needs its steps before the time asked for, the other after it
        rate = torch.where((t < 1) == (y.abs().amax(1, keepdim=True) > 5), 60.0, 1.0)
        return rate * torch.stack([y[:, 1], -y[:, 0]], 1)

    y0 = torch.tensor([[1.0, 0.5], [9.0, 9.0]], dtype=torch.float64)
    free = solve(Field(f), y0, 0.0, 2.0, SOLVER, times=(1.0,))
    attempts = free.stats.accepted + free.stats.rejected
    assert attempts.max() < 0.6 * attempts.sum()
    limited = Solver(rtol=1e-4, atol=1e-5, max_steps=int(attempts.max()))
    solution = solve(Field(f), y0, 0.0, 2.0, limited, times=(1.0,))
    torch.testing.assert_close(solution.y1, free.y1, rtol=0, atol=0)
    short = Solver(rtol=1e-4, atol=1e-5, max_steps=int(attempts.max()) - 1)
    status = solve(Field(f), y0, 0.0, 2.0, short, times=(1.0,), raises=False).status
    assert torch.equal(status == Status.STEP_LIMIT, attempts == attempts.max())


@pytest.mark.parametrize("mode", EXACT_MODES)
@pytest.mark.parametrize("control", list(StepControl))
def test_no_gradient_leaks_to_a_neighbour(mode, control):
    f, y0 = Net(), spread(4).requires_grad_()
    solution = solve(f, y0, 0.0, 1.0, Solver(gradient=mode, step_control=control), times=(0.5,))
    loss = solution.y1[1].sum() + solution.at_times[0, 1].square().sum() + solution.error[1]
    (gradient,) = torch.autograd.grad(loss, y0)
    assert bool((gradient[1] != 0).all())
    assert bool((gradient[[0, 2, 3]] == 0).all())


@pytest.mark.parametrize("mode", EXACT_MODES)
def test_the_gradient_of_an_image_is_that_of_it_alone(mode):
    f, y0 = Net(), spread(4)
    solver = Solver(rtol=1e-4, atol=1e-5, gradient=mode)

    def gradient(batch):
        batch = batch.clone().requires_grad_()
        solution = solve(f, batch, 0.0, 2.0, solver, times=(0.9,))
        return torch.autograd.grad(solution.y1.square().sum() + solution.at_times.sin().sum() + solution.error.sum(), batch)[0]

    alone = torch.cat([gradient(y0[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(gradient(y0), alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("layout", ["channels last", "strided", "expanded", "turned"])
@pytest.mark.parametrize("mode", EXACT_MODES)
def test_the_layout_in_memory_does_not_matter(layout, mode):
    f, plain = ConvNet(), torch.randn(3, 2, 4, 4, dtype=torch.float64)
    plain[1:] = (
        plain[:1] if layout == "expanded" else plain[1:] * torch.tensor([5.0, 0.1], dtype=torch.float64).reshape(2, 1, 1, 1)
    )
    y0 = {
        "channels last": plain.contiguous(memory_format=torch.channels_last),
        "strided": torch.stack([plain, plain + 1], -1)[..., 0],
        "expanded": plain[:1].expand(3, 2, 4, 4),
        "turned": plain.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0),
    }[layout]
    assert y0.stride() != plain.stride()
    assert torch.equal(y0, plain)
    before, outcomes = plain.clone(), []
    for start in (y0, plain):
        start = start.detach().requires_grad_()
        solution = solve(f, start, 0.0, 1.0, Solver(gradient=mode), times=(0.4,))
        weights = torch.autograd.grad(solution.y1.square().sum() + solution.at_times.sum(), [start, *f.parameters()])
        outcomes.append((solution.y1, solution.at_times, solution.error, *weights))
    for ours, expected in zip(*outcomes):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-11)
    assert torch.equal(y0, before)  # the caller's tensor is left alone
    if layout == "channels last":
        assert outcomes[0][0].is_contiguous(memory_format=torch.channels_last)


def test_replayed_steps_are_each_images_own():
    f, y0 = Net().requires_grad_(False), spread(4)
    record = solve(f, y0, 0.0, 1.0, SOLVER).steps
    expected, _ = along(f, y0 + 0.1, 0.0, record.sizes)
    counted = Field(f)
    torch.testing.assert_close(solve(counted, y0 + 0.1, 0.0, 1.0, SOLVER, replay=record).y1, expected, rtol=1e-11, atol=1e-11)
    assert sum(counted.calls) == 6 * int((record.sizes > 0).sum())
    few = StepRecord(record.sizes[:, :2])  # of those that arrive first: the last rows stand still
    assert float(few.sizes[-1].sum()) == 0
    torch.testing.assert_close(
        solve(Field(f), y0[:2] + 0.1, 0.0, 1.0, SOLVER, replay=few).y1, expected[:2], rtol=1e-11, atol=1e-11
    )
