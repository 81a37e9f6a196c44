"""A model that calls torchdiffeq, solved by ours instead: `with redirected(change) as solves: logits = model(images)`.

Inside the block torchdiffeq's `odeint` and `odeint_adjoint` are exchanged under every name by which a loaded module holds them.
So anybody's model gets our gradients, counts and statuses, and its code stays as it is. Method, tolerances, times and the
options `step_size`, `first_step` and `max_num_steps` are those of each call. What differs:

- Times are landed on, not interpolated. Steps are chosen alike but not the same, so that results agree to the tolerance.
- rk4 is the classical one, torchdiffeq's is the 3/8 rule: they differ by the error of either. adaptive_heun starts each step
  with f at its own state, torchdiffeq's with f at Euler's guess of it. If `step_size` does not divide the way, all steps are
  made a little smaller instead of the last one alone.
- An image whose solve fails gets the state NaN, and nothing is raised. Without `max_num_steps` the limit is 10,000 steps.
- The arguments of the adjoint solve and the callbacks of f are not heeded; our adjoint has the tolerances of the solve.
- A state in half precision is carried in float32; f still sees its own dtype. An autocast to bfloat16 goes on inside f,
  and one stage of each step undoes the rounding of weights (`ode/rounding.py`).
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType
from typing import NamedTuple

from torch import Tensor

from nodestill.errors import InputError
from nodestill.ode import GradientMode, Method, Solution, Solver
from nodestill.subjects.torchdiffeq_calls import WITHOUT, Call, check, limit_of, solved, solver_of

Change = Callable[[Solver], Solver]

_ELSEWHERE = sys.stdlib_module_names | {"torch"}  # packages that hold nothing of torchdiffeq's, and half of all modules
_TIGHTER, _TIGHTEST, _FINER = 100, 1e-6, 4  # below 1e-6 float32 rounds more than an error control can see
_PAST = (
    "torchdiffeq was called past the redirect: by odeint_event or odeint_dense, or by a reference that is no name of a "
    "module, such as self.odeint = odeint. Call odeint by the name it was imported as. " + WITHOUT
)


class RedirectedSolve(NamedTuple):
    """One call of `odeint` or `odeint_adjoint` under a redirect."""

    asked: Solver  # what the call asked for; its gradient is ADJOINT where that was `odeint_adjoint`
    max_steps: int | None  # the limit that the call set itself, or the number of fixed steps; None: torchdiffeq has no limit
    solution: Solution  # of the changed solver: evaluations of f and status per image, steps, error estimate


@contextmanager
def redirected(change: Change = lambda solver: solver) -> Iterator[list[RedirectedSolve]]:
    """Solve by ours what code in this block asks torchdiffeq to solve.

    Steps are shared by the batch, as torchdiffeq's are, and f is called with one time for all of it. If `change` asks for
    `StepControl.PER_IMAGE`, f gets t of shape (batch, 1, ..., 1) and must broadcast it. Blocks may be nested: the inner one
    holds. They change what modules hold, so no other thread should call torchdiffeq meanwhile.

    Args:
        change: From the solver that a call asks for to the one that is used.

    Yields:
        One entry per call made in the block, in order.

    Raises:
        InputError: If torchdiffeq cannot be imported. In a call: if it asks for what we cannot do, or goes past the redirect.
            In a backward pass: if f reads a tensor whose gradient would be lost.
    """
    solves: list[RedirectedSolve] = []
    held, ours = _held(), _stand_ins(change, solves)
    _exchange(held, ours)
    try:
        yield solves
    finally:
        _exchange(ours, held)  # by another search: a module that was imported in the block holds ours too


def exactly(solver: Solver) -> Solver:
    """Return a solver with the gradient of the steps that it takes: RECOMPUTE."""
    return replace(solver, gradient=GradientMode.RECOMPUTE)


def by_adjoint(solver: Solver) -> Solver:
    """Return a solver with the gradient of the adjoint equation, and tolerances that can be met on the way back: >= 1e-6."""
    rtol, atol = max(solver.rtol, _TIGHTEST), max(solver.atol, _TIGHTEST)
    return replace(solver, gradient=GradientMode.ADJOINT, rtol=rtol, atol=atol)


def tightened(solver: Solver) -> Solver:
    """Return a solver with a hundredth of the tolerances, down to 1e-6, or four times the steps, and an exact gradient."""
    if solver.steps is not None:
        return replace(exactly(solver), steps=_FINER * solver.steps)
    rtol, atol = (min(tolerance, max(tolerance / _TIGHTER, _TIGHTEST)) for tolerance in (solver.rtol, solver.atol))
    return replace(exactly(solver), rtol=rtol, atol=atol, max_steps=10 * solver.max_steps)


def in_few_steps(solver: Solver, steps: int) -> Solver:
    """Return rk4 with so many equal steps, and an exact gradient."""
    return replace(exactly(solver), method=Method.RK4, steps=steps)


def _held() -> list[Callable]:
    """Return what torchdiffeq's names hold now: its own functions, or the stand-ins of a block around this one."""
    try:
        import torchdiffeq
        from torchdiffeq._impl import misc
    except ImportError as error:
        raise InputError(f"torchdiffeq cannot be imported: {error}. Calls are redirected from torchdiffeq >= 0.2.4.") from error
    return [torchdiffeq.odeint, torchdiffeq.odeint_adjoint, misc._check_inputs]


def _exchange(old: list[Callable], new: list[Callable]) -> None:
    """Exchange functions under every name by which a loaded module holds them."""
    by_id = {id(a): b for a, b in zip(old, new, strict=True)}
    for place, module in list(sys.modules.items()):
        if place.partition(".")[0] in _ELSEWHERE or not isinstance(module, ModuleType):
            continue
        names = vars(module)
        if by_id.keys().isdisjoint(map(id, list(names.values()))):
            continue  # nearly all of some thousand modules, so this had better be quick
        for name, value in list(names.items()):
            if id(value) in by_id:
                names[name] = by_id[id(value)]


def _stand_ins(change: Change, solves: list[RedirectedSolve]) -> list[Callable]:
    """Return what stands in for `odeint`, for `odeint_adjoint`, and for what both call first if they are reached themselves."""

    def answer(call: Call) -> Tensor:
        check(call)
        asked = solver_of(call)
        states, solution = solved(call, change(asked))
        solves.append(RedirectedSolve(asked, limit_of(call, asked), solution))
        return states

    def odeint(func, y0, t, *, rtol=1e-7, atol=1e-9, method=None, options=None, event_fn=None):
        return answer(Call(func, y0, t, rtol, atol, method, options or {}, event_fn, False))

    def odeint_adjoint(
        func,
        y0,
        t,
        *,
        rtol=1e-7,
        atol=1e-9,
        method=None,
        options=None,
        event_fn=None,
        adjoint_rtol=None,
        adjoint_atol=None,
        adjoint_method=None,
        adjoint_options=None,
        adjoint_params=None,
    ):
        return answer(Call(func, y0, t, rtol, atol, method, options or {}, event_fn, True))

    def refuse(*_, **__):
        raise InputError(_PAST)

    return [odeint, odeint_adjoint, refuse]
