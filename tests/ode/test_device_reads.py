"""How often a solve waits for its device: each number that Python reads from a tensor is such a wait on an accelerator."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from nodestill.ode import GradientMode, Method, Solver, StepControl, follow, solve
from ode_oracles import Net, gradients, spread

READS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::is_nonzero", "aten::equal"}


class Reads(TorchDispatchMode):
    """Counts operations whose outcome or shape depends on values, indexing by a mask among them, and `tolist`."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.count = 0
        tolist = torch.Tensor.tolist

        def counted(tensor):
            self.count += 1
            return tolist(tensor)

        monkeypatch.setattr(torch.Tensor, "tolist", counted)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name
        masks = name in ("aten::index", "aten::index_put", "aten::index_put_") and any(
            index is not None and index.dtype is torch.bool for index in args[1]
        )
        filled = name == "aten::index_put_" and args[2].dim() == 0  # a number under a mask: `masked_fill`, no wait
        self.count += name in READS or (masks and not filled)
        return function(*args, **(kwargs or {}))


def test_the_counter_counts(monkeypatch):
    x = torch.arange(3.0)
    with Reads(monkeypatch) as reads:
        float(x[0]), x[x > 1], bool((x > 0).all()), x.tolist(), torch.nonzero(x), x[torch.tensor([0, 2])]
        x[x > 1] = 0.0
    assert reads.count == 5


@pytest.mark.parametrize("control", StepControl)
def test_an_adaptive_solve_reads_once_an_attempt(control, monkeypatch):
    f, y0 = Net(), spread()
    solver = Solver(rtol=1e-6, atol=1e-6, step_control=control)
    solution = solve(f, y0, 0.0, 1.5, solver)
    assert solution.stats.rejected.sum() > 0
    attempts = int((solution.stats.accepted + solution.stats.rejected).max())
    with Reads(monkeypatch) as reads:
        solve(f, y0, 0.0, 1.5, solver)
    assert reads.count <= attempts + 4  # at the start, and for the record and the verdict at the end


@pytest.mark.parametrize("mode", [GradientMode.DIRECT, GradientMode.RECOMPUTE])
def test_given_steps_are_taken_and_differentiated_without_reading(mode, monkeypatch):
    """But for the verdict at the end."""
    f, y0 = Net(), spread().requires_grad_()

    def reads_of(steps):
        with Reads(monkeypatch) as reads:
            solve(f, y0, 0.0, 1.5, Solver(Method.RK4, steps=steps, gradient=mode)).y1.sum().backward()
        return reads.count

    monkeypatch.setattr(follow, "_may_read", lambda device: False)
    assert reads_of(20) == reads_of(5)


@pytest.mark.parametrize("mode", [GradientMode.DIRECT, GradientMode.RECOMPUTE])
def test_images_that_stand_still_in_the_batch_are_as_if_they_had_left_it(mode, monkeypatch):
    """On the CPU they leave it; where that would be a read they stay, and take steps of size 0."""
    f, y0, solver = Net(), spread(), Solver(rtol=1e-6, atol=1e-6, gradient=mode)
    record = solve(f, y0, 0.0, 1.5, solver).steps
    assert bool((record.sizes == 0).any())
    found = []
    for reads in (True, False):
        monkeypatch.setattr(follow, "_may_read", lambda device, reads=reads: reads)
        solution, of_all = gradients(f, y0, solver, replay=record, loss=lambda solution: solution.y1.square().sum())
        found.append((solution.y1, solution.stats.evaluations, *of_all))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)
