"""What may be asked of a solve (`Solver`) and what it answers (`Solution`).

Values only: the numerics live in `step.py` and `solve.py`, the derivatives in `gradients.py`.
"""

import math
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from numbers import Integral, Real
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int, Int64
from torch import Tensor

from nodestill.errors import InputError, SolveError
from nodestill.precision import Precision


class Method(Enum):
    """Runge-Kutta methods. Those with an embedded error estimate adapt their steps, the others take `Solver.steps`."""

    DOPRI5 = "dopri5"
    TSIT5 = "tsit5"
    BOSH3 = "bosh3"
    EVEN3 = "even3"  # ours, for f with kinks (ReLU): see `tableaus`
    EVEN4 = "even4"
    HEUN_EULER = "heun-euler"
    EULER = "euler"
    MIDPOINT = "midpoint"
    RK4 = "rk4"
    REVERSIBLE = "reversible"  # midpoint steps that can be undone: exact gradients, memory independent of their number

    @property
    def is_adaptive(self) -> bool:
        """Whether the method estimates its own error, and so chooses its own steps."""
        return self not in (Method.EULER, Method.MIDPOINT, Method.RK4, Method.REVERSIBLE)


class GradientMode(Enum):
    """How a solve is differentiated. The first two differentiate the very steps that were taken, their sizes held constant."""

    DIRECT = "direct"  # keep what each evaluation of f needs for its derivative; memory grows with steps x stages
    RECOMPUTE = "recompute"  # keep states (`Solver.kept_bytes`), redo each step backwards; same gradient, little memory
    ADJOINT = "adjoint"  # solve the adjoint equation backwards; constant memory, a *different* (continuous) gradient


class StepControl(Enum):
    """Whose error decides the size of a step."""

    PER_IMAGE = "per_image"  # own steps per batch element: an image's result does not depend on the rest of its batch
    SHARED = "shared"  # one step size for the whole batch: the usual choice in published code


class Status(IntEnum):
    """How the solve of one image ended."""

    DONE = 0
    STEP_LIMIT = 1
    UNDERFLOW = 2
    NON_FINITE = 3


@dataclass(frozen=True)
class Solver:
    """Settings of a solve.

    Args:
        method: The Runge-Kutta method.
        rtol: Relative tolerance of a step's error estimate, > 0 and finite; adaptive methods only.
        atol: Absolute tolerance of a step's error estimate, > 0 and finite; adaptive methods only.
        max_steps: Limit on attempted steps of an adaptive method; reaching it is a failure of the images not yet done.
        steps: Number of steps of a fixed-step method, >= 1; None for an adaptive method.
        first_step: Size of the first step in units of time. None probes it, for one more evaluation of f.
        step_control: Whose error decides the size of a step.
        gradient: How the solve is differentiated; REVERSIBLE has its own way and pays no heed.
        kept_bytes: RECOMPUTE keeps the state at each accepted step up to so many bytes. Above it only every k-th step keeps
            its own, k the smallest power of two that meets the budget or reaches the square root of the number of steps;
            the states between are made again. Moves no result beyond rounding. Evaluations made again do not count
            towards these bytes: those of one step at a time, and of a part of the batch on a CPU, under PER_IMAGE control and
            after more than four steps.
        compiled: Whether steps that no gradient is asked of, and evaluations of f that are differentiated, run as compiled
            graphs: faster, after ten to sixty seconds of compiling at the first solve and the first gradient. Needs a C++
            compiler; moves no result beyond rounding. A graph makes the gradients of all weights that require one, so under
            DIRECT freeze them where only y0's is wanted. REVERSIBLE pays no heed.
        precision: Arithmetic inside f; BFLOAT16 needs y0 in float32. State and error control keep the dtype of y0, times and
            step sizes float64.

    Raises:
        InputError: If a value is out of range, or `steps` contradicts `method`.
    """

    method: Method = Method.DOPRI5
    rtol: float = 1e-3
    atol: float = 1e-3
    max_steps: int = 1_000
    steps: int | None = None
    first_step: float | None = None
    step_control: StepControl = StepControl.PER_IMAGE
    gradient: GradientMode = GradientMode.RECOMPUTE
    precision: Precision = Precision.FLOAT32
    kept_bytes: int = field(default=2**30, metadata={"moves_results": False})
    compiled: bool = field(default=False, metadata={"moves_results": False})

    def __post_init__(self) -> None:
        for name, kind in _CHOICES.items():
            if not isinstance(getattr(self, name), kind):
                known = ", ".join(f"{kind.__name__}.{member.name}" for member in kind)
                raise InputError(f"{name} must be one of {known}, got {getattr(self, name)!r}.")
        if not (_is_size(self.rtol) and _is_size(self.atol)):
            raise InputError(f"rtol and atol must be positive and finite, got {self.rtol!r} and {self.atol!r}. 1e-3 is usual.")
        if not _is_whole(self.max_steps, 1):
            raise InputError(f"max_steps must be a whole number >= 1, got {self.max_steps!r}. 1000 is usual.")
        if not _is_whole(self.kept_bytes, 0):
            raise InputError(f"kept_bytes must be a whole number >= 0, got {self.kept_bytes!r}. 2**30 is usual.")
        if not isinstance(self.compiled, bool):
            raise InputError(f"compiled must be True or False, got {self.compiled!r}. Leave it out for False.")
        if self.first_step is not None and not _is_size(self.first_step):
            raise InputError(
                f"first_step must be positive and finite, got {self.first_step!r}. Leave it out to have it probed."
            )
        if self.method.is_adaptive and self.steps is not None:
            raise InputError(
                f"steps = {self.steps} contradicts {self.method.value}, which chooses its own steps. "
                "Leave steps out, or choose a fixed-step method."
            )
        if not self.method.is_adaptive and not _is_whole(self.steps, 1):
            raise InputError(f"{self.method.value} takes a whole number of steps >= 1, got steps = {self.steps!r}. Set it.")


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def _is_size(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and not value <= 0 and value < math.inf  # a Real has no >


_CHOICES: dict[str, type[Enum]] = {
    "method": Method,
    "step_control": StepControl,
    "gradient": GradientMode,
    "precision": Precision,
}


class SolveStats(NamedTuple):
    """What a solve cost each image."""

    evaluations: Int64[Tensor, " batch"]  # calls of f charged to each image (NFE)
    accepted: Int64[Tensor, " batch"]
    rejected: Int64[Tensor, " batch"]


class StepRecord(NamedTuple):
    """Accepted step sizes: enough to take the same steps again without error control (`solve(..., replay=record)`)."""

    sizes: Float64[Tensor, "steps batch"]  # 0 where an image had already arrived


class Solution(NamedTuple):
    """What a solve found and what it did."""

    y1: Float[Tensor, "batch *state"]  # NaN for an image whose solve failed
    stats: SolveStats
    at_times: Float[Tensor, "times batch *state"]  # states at the asked-for times; empty if none were asked for
    status: Int[Tensor, " batch"]  # a `Status` per image
    steps: StepRecord
    error: Float[Tensor, " batch"]  # sum over accepted steps of the error estimate's RMS, in units of y; 0 if steps were given
    reconstruction_error: Float64[Tensor, " batch"] | None = None  # REVERSIBLE: by how much of its size the way back missed the
    # start of an image; written by the backward pass, NaN where none went back. Other methods: None

    def require_success(self, solver: Solver, t1: float, *, given: bool = False) -> "Solution":
        """Return this solution if every image arrived.

        Args:
            solver: What it was solved with.
            t1: Where it was to arrive.
            given: Whether the steps were given, as by a replay, not chosen.

        Raises:
            SolveError: If an image did not; says how many, which, why, and what to do, for each reason.
        """
        failed = failures(self.status)
        if not bool(failed.any()):
            return self
        counts = {reason: int((self.status == int(reason)).sum()) for reason in Status if reason is not Status.DONE}
        said = [(n, _GIVEN if given and reason is Status.STEP_LIMIT else _REASONS[reason]) for reason, n in counts.items() if n]
        reasons = [(f"{n} of them: " if len(said) > 1 else "") + reason.format(solver=solver) for n, reason in said]
        chosen = solver.method.is_adaptive and not given  # steps that were given are all on record, whatever they led to
        how = f"stopped {float(self.steps.sizes.sum(0)[failed].min()):.3g} after its start" if chosen else "did not arrive"
        raise SolveError(
            f"Solve {how} (t1 = {t1:g}) for {named(torch.nonzero(failed)[:, 0], len(failed))}: {' '.join(reasons)}"
        )


def failures(status: Int[Tensor, " batch"]) -> Bool[Tensor, " batch"]:
    """Return which images did not arrive."""
    return status.ne(int(Status.DONE))  # as a number: torch.compile takes "tensor != enumeration" for a constant


def named(images: Tensor, batch: int) -> str:
    """Return how many images of a batch are meant, and the positions of the first of them."""
    positions = ", ".join(map(str, images[:5].tolist())) + (", ..." if len(images) > 5 else "")
    return f"{len(images)} of {batch} images (at positions {positions})"


_REASONS = {
    Status.STEP_LIMIT: "{solver.max_steps} steps did not lead to t1 (rtol {solver.rtol:g}). "
    "Raise max_steps, loosen rtol and atol, or use a shorter t1.",
    Status.UNDERFLOW: "the step size fell below the resolution of time (rtol {solver.rtol:g}). "
    "The solution becomes infinite there, or f is too stiff or not smooth: scale f down, loosen rtol and atol, which does not "
    "help where it becomes infinite, or use a shorter t1.",
    Status.NON_FINITE: "f or the state became infinite or not a number, or y0 was so from the start. "
    "Lower the learning rate, normalise or scale down f, or use a shorter t1.",
}
_GIVEN = "the steps to be replayed do not add up to t1 - t0. Replay a record of this interval."


def no_times(y0: Float[Tensor, "batch *state"]) -> Float[Tensor, "0 batch *state"]:
    """Return the empty `Solution.at_times`, shape (0, batch, ...)."""
    return torch.empty((0, *y0.shape), dtype=y0.dtype, device=y0.device)
