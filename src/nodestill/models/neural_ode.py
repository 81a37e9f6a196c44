"""The student: images in [0, 1] → encoder → dy/dt = f(t, y), solved from 0 to t1 → head → logits.

There may be further equations on smaller pictures: → transition → dy/dt = f₂(t, y), solved likewise → ... → head.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from nodestill.errors import InputError
from nodestill.models.dynamics import ConvDynamics
from nodestill.models.head import Pooling
from nodestill.models.normalize import NO_MEAN, NO_STD
from nodestill.models.stem import Stem, as_state, encoders, head_behind
from nodestill.ode import Solution, Solver, SolveStats, Status, StepRecord, solve
from nodestill.ode.solver import no_times
from nodestill.shapes import Images, Logits

State = Float[Tensor, "batch channels rows columns"]


class Prediction(NamedTuple):
    """Logits, and the solves they came from."""

    logits: Float[Tensor, "batch classes"]  # NaN for an image whose solve failed
    solutions: tuple[Solution, ...]  # one per equation, in order

    @property
    def evaluations_by_equation(self) -> Int64[Tensor, "batch equations"]:
        """Calls of each equation's f per image."""
        return torch.stack([solution.stats.evaluations for solution in self.solutions], 1)

    @property
    def evaluations(self) -> Int64[Tensor, " batch"]:
        """Calls of f per image, over all equations (NFE)."""
        return self.evaluations_by_equation.sum(1)

    @property
    def steps(self) -> tuple[StepRecord, ...]:
        """The steps of each solve, to be replayed."""
        return tuple(solution.steps for solution in self.solutions)


class NeuralODEClassifier(nn.Module):
    """A classifier whose middle is the solution of a differential equation, or of several one after another.

    Args:
        encoder: Images in [0, 1] → state; its first layer is the normalisation.
        dynamics: f(t, y), t of shape (batch, 1, 1, 1).
        head: State → logits, each image by itself.
        t1: Horizon, finite and >= 0. With 0 nothing is solved: the control that shows what the other layers do alone.
        solver: How to solve.
        further: For each further equation the layer that makes its initial state, and its f. All have one horizon.

    Raises:
        InputError: If `t1` is out of range.
    """

    def __init__(
        self,
        encoder: nn.Module,
        dynamics: nn.Module,
        head: nn.Module,
        *,
        t1: float,
        solver: Solver,
        further: Sequence[tuple[nn.Module, nn.Module]] = (),
    ) -> None:
        super().__init__()
        if not 0 <= t1 < float("inf"):
            raise InputError(f"t1 must be finite and >= 0, got {t1}. 1 is usual; 0 leaves the solve out.")
        self.encoder = encoder
        self.dynamics = dynamics
        self.transitions = nn.ModuleList(layer for layer, _ in further)
        self.further_dynamics = nn.ModuleList(f for _, f in further)
        self.head = head
        self.t1 = float(t1)
        self.solver = solver

    @property
    def equations(self) -> list[tuple[nn.Module, nn.Module]]:
        """The encoder that makes each initial state, and the f it flows under, in order."""
        return [(self.encoder, self.dynamics), *zip(self.transitions, self.further_dynamics, strict=True)]

    def encode(self, images: Images) -> State:
        """Return the first y(0), channels-last and at least float32 even under autocast."""
        return as_state(self.encoder(images))

    def predict(self, images: Images, *, replay: Sequence[StepRecord] = (), raises: bool = True) -> Prediction:
        """Return logits and what the solves did.

        Args:
            images: Images in [0, 1].
            replay: Steps of an earlier prediction of as many images, to be taken again without error control.
            raises: Whether an image whose solve fails is an error; if not, its logits are NaN and its status says why.

        Returns:
            Logits, shape (batch, classes), and the solutions they came from.

        Raises:
            InputError: If `replay` holds another number of records than there are equations.
            SolveError: If a solve fails and `raises`.
        """
        equations = self.equations
        if replay and len(replay) != len(equations):
            raise InputError(
                f"replay must hold one record per equation, {len(equations)}, got {len(replay)}. Pass prediction.steps."
            )
        given: Sequence[StepRecord | None] = replay or [None] * len(equations)
        y, solutions = images, []
        for (encoder, f), steps in zip(equations, given, strict=True):
            y0 = as_state(encoder(y))
            solution = solve(f, y0, 0.0, self.t1, self.solver, replay=steps, raises=raises) if self.t1 else _no_solve(y0)
            solutions.append(solution)
            y = solution.y1
        return Prediction(self.head(y), tuple(solutions))

    def forward(self, images: Images) -> Logits:
        """Return the logits of images in [0, 1].

        Raises:
            SolveError: If a solve fails. A compiled graph cannot raise: there the logits are NaN.
        """
        return self.predict(images, raises=not torch.compiler.is_compiling()).logits

    def with_solver(self, solver: Solver, *, t1: float | None = None) -> "NeuralODEClassifier":
        """Return a classifier that shares this one's layers, weights and mode included, but solves otherwise.

        Args:
            solver: How to solve.
            t1: Another horizon: 0 to leave the solves out; None to keep it.
        """
        other = NeuralODEClassifier(
            self.encoder,
            self.dynamics,
            self.head,
            t1=self.t1 if t1 is None else t1,
            solver=solver,
            further=self.equations[1:],
        )
        other.training = self.training
        return other


def _no_solve(y0: State) -> Solution:
    """Return the solution of a solve over no time at all."""
    batch = y0.shape[0]
    zero = torch.zeros(batch, dtype=torch.int64, device=y0.device)
    sizes = torch.zeros(0, batch, dtype=torch.float64, device=y0.device)
    status = torch.full_like(zero, Status.DONE)
    return Solution(y0, SolveStats(zero, zero, zero), no_times(y0), status, StepRecord(sizes), y0.new_zeros(batch))


def node_classifier(
    kind: Stem,
    dynamics: Sequence[ConvDynamics],
    *,
    solver: Solver,
    num_classes: int,
    mean: Sequence[float] = NO_MEAN,
    std: Sequence[float] = NO_STD,
    pooling: Pooling = Pooling.AVERAGE,
) -> NeuralODEClassifier:
    """Build the student NODE(t1) around its f, or several f on ever smaller pictures; channels and t1 are theirs.

    Args:
        kind: How an image becomes a state.
        dynamics: Each f, at least one, of one t1; with t1 = 0 it is there but not used.
        solver: How to solve.
        num_classes: Classes to tell apart, >= 1.
        mean: Mean of each colour, in units of pixels in [0, 1].
        std: Deviation of each colour in the same units, > 0.
        pooling: How the head makes one number of each channel.

    Raises:
        InputError: If there is no f, or they have different t1.
    """
    if len({f.t1 for f in dynamics}) != 1:
        raise InputError(f"dynamics must be at least one f, all of one t1, got t1 = {[f.t1 for f in dynamics]}. Give them one.")
    encoder, *transitions = encoders(kind, [f.channels for f in dynamics], mean, std)
    head = head_behind(kind, dynamics[-1].channels, num_classes, pooling)
    further = list(zip(transitions, dynamics[1:], strict=True))
    model = NeuralODEClassifier(encoder, dynamics[0], head, t1=dynamics[0].t1, solver=solver, further=further)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in the stubs
