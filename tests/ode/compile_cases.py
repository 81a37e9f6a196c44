"""Given steps compile as one graph, forward and backward, and give what they give uncompiled. Run by `test_compile.py`."""

import shutil
from dataclasses import replace

import pytest
import torch

from nodestill.models import Activation, ConvDynamics, Norm
from nodestill.ode import GradientMode, Method, Solver, StepRecord, field, solve
from nodestill.precision import Precision
from ode_oracles import spread

pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated")  # PyTorch's own, tracing an autograd function
REPLAYED, FIXED = Solver(first_step=0.25), Solver(Method.RK4, steps=3)


@pytest.fixture(autouse=True)
def forget_what_was_compiled():
    _forget()
    yield
    _forget()


def _forget():
    torch._dynamo.reset()
    if hasattr(field._graph_of, "cache_clear"):  # a test may have put another in its place
        field._graph_of.cache_clear()


def subject(norm):
    torch.manual_seed(0)
    f = ConvDynamics(4, layers=2, norm=norm, activation=Activation.RELU, t1=1.0)
    return f, torch.randn(3, 4, 4, 4).contiguous(memory_format=torch.channels_last)


class Linear(torch.nn.Module):
    """In bfloat16 under autocast, and left so."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 3)

    def forward(self, t, y):
        return self.layer(y)


def run(f, y, sizes, solver):
    replay = None if sizes is None else StepRecord(sizes)
    return solve(f, y, 0.0, 1.0, solver, replay=replay, raises=False).y1


def gradients(solved, f, y):
    y = y.clone().requires_grad_()
    return torch.autograd.grad(solved(y).square().sum(), [y, *f.parameters()])


@pytest.mark.parametrize("norm", Norm)
@pytest.mark.parametrize("solver", [REPLAYED, FIXED], ids=["replayed", "fixed"])
def test_one_graph_for_other_images_and_other_steps(norm, solver):
    """`fullgraph` refuses any part that would not compile; the second call must not compile anything anew."""
    f, y0 = subject(norm)
    sizes = solve(f, y0, 0.0, 1.0, solver).steps.sizes if solver is REPLAYED else None
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(run, backend=count, fullgraph=True)
    others = (y0.flip(0), None if sizes is None else sizes.flip(1))
    with torch.no_grad():
        for y, h in ((y0, sizes), others):
            torch.testing.assert_close(compiled(f, y, h, solver), run(f, y, h, solver), rtol=1e-5, atol=1e-5)
    assert len(graphs) == 1


@pytest.mark.parametrize("norm", Norm)
def test_gradients_of_a_compiled_solve(norm):
    f, y0 = subject(norm)
    sizes = solve(f, y0, 0.0, 1.0, REPLAYED).steps.sizes
    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    found = gradients(lambda y: compiled(f, y, sizes, REPLAYED), f, y0)
    for one, other in zip(found, gradients(lambda y: run(f, y, sizes, REPLAYED), f, y0), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_compiled_solve_in_bfloat16_errs_as_the_uncompiled_one():
    f, y0 = subject(Norm.NONE)
    sizes = solve(f, y0, 0.0, 1.0, REPLAYED).steps.sizes
    low = Solver(first_step=0.25, precision=Precision.BFLOAT16)
    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        exact, rounded, found = run(f, y0, sizes, REPLAYED), run(f, y0, sizes, low), compiled(f, y0, sizes, low)
    assert 0 < float((found - exact).norm()) <= 1.5 * float((rounded - exact).norm())


def test_a_state_stays_float32_whatever_f_returns():
    f, y0 = Linear(), spread(dtype=torch.float32)
    solver = Solver(Method.RK4, steps=3, precision=Precision.BFLOAT16)
    with torch.no_grad():
        found = torch.compile(run, backend="eager", fullgraph=True)(f, y0, None, solver)
        expected = run(f, y0, None, solver)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("norm", "solver"),
    [
        (Norm.NONE, Solver(rtol=1e-3, atol=1e-3, gradient=GradientMode.ADJOINT)),
        (Norm.GROUP, Solver(rtol=1e-3, atol=1e-3)),
        (Norm.GROUP, Solver(rtol=1e-3, atol=1e-3, gradient=GradientMode.DIRECT)),
        (Norm.NONE, Solver(Method.RK4, steps=3)),
    ],
)
def test_steps_may_be_compiled_and_the_loop_is_not(norm, solver, monkeypatch):
    """States, counts and gradients are those of the uncompiled solve, also where images leave the batch one by one."""
    f, y0 = subject(norm)
    y0 = y0 * torch.tensor([0.1, 1.0, 8.0]).view(3, 1, 1, 1)  # of different numbers of steps
    quick = replace(solver, compiled=True)
    graphs = []
    monkeypatch.setattr(field, "_graph_of", lambda function: torch.compile(function, backend=_noting(graphs)))
    expected, found = solve(f, y0, 0.0, 1.0, solver), solve(f, y0, 0.0, 1.0, quick)
    assert graphs
    assert (len(set(expected.stats.accepted.tolist())) > 1) == solver.method.is_adaptive
    torch.testing.assert_close(found.y1, expected.y1, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.error, expected.error, rtol=1e-3, atol=1e-7)
    assert found.stats.evaluations.tolist() == expected.stats.evaluations.tolist()
    by = {each: gradients(lambda y, s=each: solve(f, y, 0.0, 1.0, s).y1, f, y0) for each in (solver, quick)}
    for one, other in zip(by[quick], by[solver], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("watched", "expected"), [(True, False), (False, True)])
def test_no_graph_makes_gradients_of_weights_that_nobody_asked_for(watched, expected, monkeypatch):
    """A graph has those of all that are watched; so the way back to the state alone has one only where none is."""
    f, y0 = subject(Norm.GROUP)
    f.requires_grad_(watched)
    asked = []
    monkeypatch.setattr(field, "_graph_of", lambda function: asked.append(function) or function)
    y0.requires_grad_()
    y1 = solve(f, y0, 0.0, 1.0, Solver(compiled=True)).y1
    torch.autograd.grad(y1.sum(), y0)
    assert (field._slope in asked) == expected


def test_more_settings_compile_than_pytorch_allows_by_itself(monkeypatch):
    graphs, compiler, config = [], torch.compile, torch._dynamo.config
    monkeypatch.setattr(torch, "compile", lambda function: compiler(function, backend=_noting(graphs)))
    f, y0 = subject(Norm.NONE)
    with torch.no_grad(), config.patch(cache_size_limit=1, fail_on_cache_limit_hit=True):
        for method in (Method.HEUN_EULER, Method.BOSH3, Method.EVEN3):
            solve(f, y0, 0.0, 1.0, Solver(method, first_step=0.5, compiled=True))
    assert len(graphs) >= 3


def _noting(graphs):
    def compile_nothing(graph, inputs):
        graphs.append(graph)
        return graph.forward

    return compile_nothing


@pytest.mark.skipif(shutil.which("g++") is None, reason="the compiler needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # PyTorch's own
def test_steps_compiled_by_the_real_compiler():
    f, y0 = subject(Norm.GROUP)
    solver = Solver(rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        expected = solve(f, y0, 0.0, 1.0, solver).y1
        torch.testing.assert_close(solve(f, y0, 0.0, 1.0, replace(solver, compiled=True)).y1, expected, rtol=1e-5, atol=1e-5)
    by = [gradients(lambda y, s=s: solve(f, y, 0.0, 1.0, s).y1, f, y0) for s in (solver, replace(solver, compiled=True))]
    for one, other in zip(*by, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(shutil.which("g++") is None, reason="the compiler needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # PyTorch's own
def test_the_real_compiler_leaves_roundings_in():
    """It takes a conversion to bfloat16 and back for nothing, and would then undo a rounding that is still there."""
    f, y0 = subject(Norm.GROUP)
    full = Solver(Method.BOSH3, first_step=0.25)
    low = replace(full, precision=Precision.BFLOAT16)
    with torch.no_grad():
        exact, eager, quick = (solve(f, y0, 0.0, 1.0, s).y1 for s in (full, low, replace(low, compiled=True)))
    assert 0 < float((quick - exact).norm()) <= 1.2 * float((eager - exact).norm())


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # the compiler's own, at a gap
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("solver", [Solver(rtol=1e-4, atol=1e-4), Solver(Method.REVERSIBLE, steps=4)])
def test_a_model_may_be_compiled_around_a_solve_that_is_not(solver, backend):
    """Such a solve is left out of the graph, and must be none the worse for it."""
    f, y0 = subject(Norm.NONE)

    def model(y):
        return solve(f, y * 2, 0.0, 1.0, solver).y1 * 3

    expected = gradients(model, f, y0)
    for one, other in zip(gradients(torch.compile(model, backend=backend), f, y0), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
