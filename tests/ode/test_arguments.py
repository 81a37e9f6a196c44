"""What goes into a solve: dtypes and precision, and what is refused because it cannot be meant."""

import math

import pytest
import torch

from nodestill.errors import InputError
from nodestill.ode import GradientMode, Method, Solver, Status, StepRecord, solve
from nodestill.precision import Precision
from ode_oracles import Field, spread

HARMONIC = Field(lambda t, y: torch.stack([y[:, 1], -y[:, 0]], 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("solver", [Solver(), Solver(Method.RK4, steps=7)])
def test_dtype_in_is_dtype_out(dtype, solver):
    f = Field(lambda t, y: -y * torch.cos(t), dtype)  # asserts what it is given
    solution = solve(f, torch.ones(2, 3, 1, 2, dtype=dtype), 0.0, 2.0, solver, times=(1.0,))
    assert {solution.y1.dtype, solution.at_times.dtype, solution.error.dtype} == {dtype}
    torch.testing.assert_close(solution.y1, torch.full((2, 3, 1, 2), math.exp(-math.sin(2)), dtype=dtype), rtol=2e-3, atol=0)


def test_bfloat16_is_inside_f_alone():
    layer, seen = torch.nn.Linear(3, 3), []

    def inner(t, y):
        seen.append(layer(y).dtype)
        return -layer(y)

    f, y0 = Field(inner, torch.float32), spread(dtype=torch.float32)
    with torch.no_grad():
        low = solve(f, y0, 0.0, 1.0, Solver(precision=Precision.BFLOAT16)).y1
        assert set(seen) == {torch.bfloat16}
        assert low.dtype == torch.float32
        with torch.autocast("cpu", torch.bfloat16):  # the solver's precision, not the caller's
            full = solve(f, y0, 0.0, 1.0, Solver()).y1
    assert seen[-1] == torch.float32
    assert 0 < float((low - full).abs().max()) < 0.05 * float(full.abs().max())


def test_weights_are_converted_once_and_forgotten():
    """Autocast keeps what it converts until its outermost block ends; conversions without gradient must not survive."""
    layer = torch.nn.Linear(3, 3)
    f, y0 = Field(lambda t, y: -layer(y), torch.float32), spread(dtype=torch.float32)
    f.layer = layer
    solver = Solver(Method.MIDPOINT, steps=3, precision=Precision.BFLOAT16)  # no stage of it has weights of its own
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            inside = solve(f, y0, 0.0, 1.0, solver).y1
        layer(y0).sum().backward()
    assert layer.weight.grad is not None
    with torch.no_grad(), torch.profiler.profile(record_shapes=True) as profile:
        outside = solve(f, y0, 0.0, 1.0, solver)
    assert torch.equal(inside, outside.y1)
    conversions = sum(event.count for event in profile.key_averages(group_by_input_shape=True) if _converts(event))
    assert conversions == 1 < outside.stats.evaluations.max()


def _converts(event):
    return event.key == "aten::_to_copy" and event.input_shapes[:1] == [[3, 3]]


@pytest.mark.parametrize(
    "change",
    [
        {"y0": torch.ones(2, 2, dtype=torch.float16)},
        {"y0": torch.ones(2)},
        {"t1": 0.0},
        {"t1": math.inf},
        {"times": (0.5, 0.5)},
        {"times": (0.5, 0.4)},
        {"times": (-0.5,)},
        {"times": (1.5,)},
        {"times": (math.nan,)},
        {"replay": StepRecord(torch.ones(1, 3, dtype=torch.float64))},
        {"replay": StepRecord(torch.ones(1, 2, dtype=torch.float64)), "times": (0.5,)},
        {"replay": StepRecord(torch.ones(2, dtype=torch.float64))},
        {"solver": Solver(precision=Precision.BFLOAT16)},
        {"dynamics": Field(lambda t, y: y[:, :1])},
        {"dynamics": Field(lambda t, y: y[0])},
        {"dynamics": Field(lambda t, y: (y, y))},
    ],
)
def test_what_cannot_be_meant_is_refused(change):
    call = {"dynamics": HARMONIC, "y0": torch.ones(2, 2, dtype=torch.float64), "t0": 0.0, "t1": 1.0, "solver": Solver()}
    assert bool((solve(**call).status == Status.DONE).all())
    with pytest.raises(InputError):
        solve(**call | change)


@pytest.mark.parametrize(
    "settings",
    [{"rtol": 0.0}, {"atol": -1.0}, {"rtol": math.nan}, {"max_steps": 0}, {"first_step": 0.0}, {"steps": 3},
     {"atol": math.inf}, {"kept_bytes": -1}, {"first_step": math.inf}, {"steps": 0, "method": Method.RK4}],
)  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused(settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        Solver(**settings)


@pytest.mark.parametrize(
    "change",
    [lambda t, y: torch.relu_(y), lambda t, y: y[:, :1].neg_() + y, lambda t, y: y * t.add_(1)],
    ids=["y", "a part of y", "t"],
)
@pytest.mark.parametrize(
    "solver",
    [*[Solver(gradient=mode) for mode in GradientMode], Solver(Method.RK4, steps=3), Solver(Method.REVERSIBLE, steps=3)],
    ids=[*[mode.value for mode in GradientMode], "rk4", "reversible"],
)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_an_f_that_writes_into_what_it_is_given_is_refused(change, solver, requires_grad):
    with torch.set_grad_enabled(requires_grad), pytest.raises(InputError, match=r"in place.*return a new tensor"):
        solve(Field(change), spread().requires_grad_(requires_grad), 0.0, 1.0, solver)


def test_an_f_that_writes_into_its_own_weight_is_told_so_by_torch():
    layer = torch.nn.Linear(2, 2, dtype=torch.float64)
    f, before = Field(lambda t, y: y @ layer.weight.mul_(0.5)), layer.weight.tolist()
    f.layer = layer
    with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"):
        solve(f, torch.ones(2, 2, dtype=torch.float64), 0.0, 1.0, Solver(gradient=GradientMode.DIRECT))
    assert layer.weight.tolist() == before


def test_a_start_from_outside_inference_mode_is_watched_inside_it():
    y0 = spread()
    with torch.inference_mode(), pytest.raises(InputError, match="in place"):
        solve(Field(lambda t, y: torch.relu_(y)), y0, 0.0, 1.0, Solver())
    with torch.inference_mode():  # states that have no count of changes are solved as before
        assert solve(HARMONIC, torch.ones(1, 2, dtype=torch.float64), 0.0, 1.0, Solver()).y1.is_inference()


def test_a_fixed_step_method_needs_its_steps():
    with pytest.raises(InputError, match="rk4 takes a whole number of steps"):
        Solver(Method.RK4)
