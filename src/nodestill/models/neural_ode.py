"""The student: images in [0, 1] → encoder → dy/dt = f(t, y), solved from 0 to t1 → head → logits."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nodestill.errors import InputError
from nodestill.models.dynamics import ConvDynamics
from nodestill.models.head import classification_head
from nodestill.models.normalize import NO_MEAN, NO_STD, Normalize
from nodestill.models.stem import Stem, stem
from nodestill.ode import Solution, Solver, SolveStats, Status, StepRecord, solve
from nodestill.ode.solver import no_times
from nodestill.shapes import Images, Logits

State = Float[Tensor, "batch channels rows columns"]


class Prediction(NamedTuple):
    """Logits, and the solve they came from."""

    logits: Float[Tensor, "batch classes"]  # NaN for an image whose solve failed
    solution: Solution


class NeuralODEClassifier(nn.Module):
    """A classifier whose middle is the solution of a differential equation.

    Args:
        encoder: Images in [0, 1] → state; its first layer is the normalisation.
        dynamics: f(t, y), t of shape (batch, 1, 1, 1).
        head: State → logits, each image by itself.
        t1: Horizon, finite and >= 0. With 0 nothing is solved: the control that shows what the encoder does alone.
        solver: How to solve.

    Raises:
        InputError: If `t1` is out of range.
    """

    def __init__(self, encoder: nn.Module, dynamics: nn.Module, head: nn.Module, *, t1: float, solver: Solver) -> None:
        super().__init__()
        if not 0 <= t1 < float("inf"):
            raise InputError(f"t1 must be finite and >= 0, got {t1}. 1 is usual; 0 leaves the solve out.")
        self.encoder = encoder
        self.dynamics = dynamics
        self.head = head
        self.t1 = float(t1)
        self.solver = solver

    def encode(self, images: Images) -> State:
        """Return y(0), channels-last and at least float32 even under autocast."""
        y0 = self.encoder(images)
        return y0.to(torch.promote_types(y0.dtype, torch.float32)).contiguous(memory_format=torch.channels_last)

    def predict(self, images: Images, *, replay: StepRecord | None = None, raises: bool = True) -> Prediction:
        """Return logits and what the solve did.

        Args:
            images: Images in [0, 1].
            replay: Steps of an earlier solve of as many images, to be taken again without error control.
            raises: Whether an image whose solve fails is an error; if not, its logits are NaN and its status says why.

        Returns:
            Logits, shape (batch, classes), and the `Solution` they came from.

        Raises:
            SolveError: If a solve fails and `raises`.
        """
        y0 = self.encode(images)
        if self.t1 == 0:
            solution = _no_solve(y0)
        else:
            solution = solve(self.dynamics, y0, 0.0, self.t1, self.solver, replay=replay, raises=raises)
        return Prediction(self.head(solution.y1), solution)

    def forward(self, images: Images) -> Logits:
        """Return the logits of images in [0, 1].

        Raises:
            SolveError: If a solve fails.
        """
        return self.predict(images).logits

    def with_solver(self, solver: Solver) -> "NeuralODEClassifier":
        """Return a classifier that shares this one's layers, weights and mode included, but solves with `solver`."""
        other = NeuralODEClassifier(self.encoder, self.dynamics, self.head, t1=self.t1, solver=solver)
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
    dynamics: ConvDynamics,
    *,
    solver: Solver,
    num_classes: int,
    mean: Sequence[float] = NO_MEAN,
    std: Sequence[float] = NO_STD,
) -> NeuralODEClassifier:
    """Build the student NODE(t1) around an f; channels and t1 are those of f.

    Args:
        kind: How an image becomes a state.
        dynamics: f; with t1 = 0 it is there but not used.
        solver: How to solve.
        num_classes: Classes to tell apart, >= 1.
        mean: Mean of each colour, in units of pixels in [0, 1].
        std: Deviation of each colour in the same units, > 0.

    Raises:
        InputError: If a value is out of range.
    """
    channels = dynamics.channels
    encoder = nn.Sequential(Normalize(mean, std), stem(kind, channels))
    head = classification_head(channels, num_classes)
    model = NeuralODEClassifier(encoder, dynamics, head, t1=dynamics.t1, solver=solver)
    return model.to(memory_format=torch.channels_last)
