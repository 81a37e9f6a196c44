"""How a model is fitted: optimiser, learning rate over time, batches and epochs, as one frozen value."""

from dataclasses import dataclass, field
from enum import Enum

import torch
from torch import nn

from nodestill.data import Augment
from nodestill.errors import RecipeError
from nodestill.precision import Precision
from nodestill.training.muon import Muon


class Optimizer(Enum):
    """How a gradient becomes a step."""

    SGD = "sgd"  # the paper's for teachers and the distilled NODE(1)
    ADAM = "adam"  # the paper's for the other students
    MUON = "muon"  # see `Muon`


class Schedule(Enum):
    """The course of the learning rate."""

    STEPS = "steps"  # the paper's: multiplied by `decay` at each milestone
    TRIANGLE = "triangle"  # linearly up to `lr` at the first milestone, then linearly to zero; for short trainings


@dataclass(frozen=True)
class Training:
    """How one model is trained.

    Args:
        optimizer: SGD with momentum, Adam with betas 0.9 and 0.999, or Muon.
        lr: Highest learning rate, > 0.
        epochs: Passes over the training images, >= 1.
        momentum: 0 <= momentum < 1; of SGD, Nesterov's under TRIANGLE; of Muon, always Nesterov's. Adam ignores it.
        weight_decay: L2 penalty, >= 0; for Muon, what a step removes of a convolution's weights, over the rate.
        batch_size: Images per optimiser step over all processes, >= 1.
        schedule: The course of the learning rate.
        milestones: When it changes, as fractions of the epochs, increasing, each in (0, 1).
        decay: What it is multiplied by at each milestone of STEPS, in (0, 1].
        label_smoothing: Share of the target spread over all classes, in [0, 1).
        augment: How training images are varied.
        precision: Arithmetic outside an ODE's f, which has its own in `Solver.precision`.
        vector_rate: Rate of biases, norms and linear layers over `lr`, > 0; of Muon alone.
        filter_norm: Root mean square of the norms of the filters that a convolution in front of a BatchNorm is brought to
            before each step, in place of weight decay; 0 treats it as all others. Of Muon alone.
        double_softmax: Whether the labels' cross-entropy is taken of probabilities, as if they were logits: the paper's
            notation read literally. A mistake, and a control.
        sides: Pixels that the shorter side of a view is shrunk to, one number an epoch, from the first; later epochs have views
            as they are. Small pictures are quick, and the last epochs decide (Tan and Le 2021, progressive learning). Where
            training is compiled, at most three sizes: each is a graph.
        hold_out: Whether a fixed tenth of the training images is kept from training and scored in place of the test images,
            for choosing settings.
        compiled: Whether forward and backward pass run as a compiled graph; only with solves of fixed steps. Moves no result
            beyond rounding. Fast if the batches divide the images: another size is another graph.

    Raises:
        RecipeError: If a value is out of its range.
    """

    optimizer: Optimizer
    lr: float
    epochs: int
    momentum: float = 0.9
    weight_decay: float = 0.0
    batch_size: int = 128
    schedule: Schedule = Schedule.STEPS
    milestones: tuple[float, ...] = (0.5, 0.75)
    decay: float = 0.1
    label_smoothing: float = 0.0
    augment: Augment = field(default_factory=Augment)
    precision: Precision = Precision.FLOAT32
    vector_rate: float = field(default=1.0, metadata={"later": True})
    filter_norm: float = field(default=0.0, metadata={"later": True})
    double_softmax: bool = field(default=False, metadata={"later": True})
    sides: tuple[int, ...] = field(default=(), metadata={"later": True})
    hold_out: bool = field(default=False, metadata={"later": True})
    compiled: bool = field(default=False, metadata={"moves_results": False})

    def __post_init__(self) -> None:
        _require(0 < self.lr < float("inf"), "lr", self.lr, "be positive and finite", "0.1 suits SGD, 0.001 Adam")
        _require(self.epochs >= 1, "epochs", self.epochs, "be at least 1", "the paper uses 200")
        _require(0 <= self.momentum < 1, "momentum", self.momentum, "lie in [0, 1)", "0.9 is usual")
        _require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "not be negative", "0 switches it off")
        _require(self.batch_size >= 1, "batch_size", self.batch_size, "be at least 1", "the paper uses 128")
        ordered = all(0 < m < 1 for m in self.milestones) and list(self.milestones) == sorted(set(self.milestones))
        _require(ordered, "milestones", self.milestones, "be increasing fractions of the epochs in (0, 1)", "try 0.5,0.75")
        needs_peak = self.schedule is Schedule.TRIANGLE
        _require(
            not needs_peak or len(self.milestones) == 1, "milestones", self.milestones, "be one peak for triangle", "try 0.2"
        )
        ours = self.vector_rate > 0 and (self.vector_rate == 1 or self.optimizer is Optimizer.MUON)
        _require(
            ours,
            "vector_rate",
            self.vector_rate,
            "be positive, and 1 unless the optimizer is muon",
            "500 is fast where logits are means",
        )
        ours = self.filter_norm >= 0 and (self.filter_norm == 0 or self.optimizer is Optimizer.MUON)
        _require(
            ours,
            "filter_norm",
            self.filter_norm,
            "not be negative, and 0 unless the optimizer is muon",
            "the fast recipes have 0.4",
        )
        fits = all(side >= 1 for side in self.sides) and len(self.sides) < self.epochs
        _require(
            fits, "sides", self.sides, "be pixels of at least 1, for fewer epochs than there are", "the last needs the images"
        )
        few = len(set(self.sides)) <= 3 or not self.compiled
        _require(few, "sides", self.sides, "be at most three sizes where training is compiled", "each is a graph")
        _require(0 < self.decay <= 1, "decay", self.decay, "lie in (0, 1]", "0.1 is the paper's")
        _require(0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "lie in [0, 1)", "0 switches it off")


def _require(holds: bool, name: str, value: object, expected: str, hint: str) -> None:
    if not holds:
        raise RecipeError(f"training.{name} must {expected}, got {value}; {hint}.")


def learning_rate(plan: Training, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of one optimiser step.

    Args:
        plan: Highest rate, epochs and schedule.
        step: Number of the step, counted from 0 over the whole training.
        steps_per_epoch: Steps in one pass over the images, >= 1.

    Source:
        Chu et al. 2022, section 3.2: one tenth from half of the epochs on, one hundredth from three quarters on.
    """
    if plan.schedule is Schedule.TRIANGLE:
        total, peak = plan.epochs * steps_per_epoch, plan.milestones[0]
        progress = (step + 1) / (total + 1)
        return plan.lr * min(progress / peak, (1 - progress) / (1 - peak))
    epoch = step // steps_per_epoch
    return plan.lr * plan.decay ** sum(epoch >= round(m * plan.epochs, 6) for m in plan.milestones)  # 0.55 * 100 > 55


def build_optimizer(model: nn.Module, plan: Training) -> torch.optim.Optimizer:
    """Return the optimiser of a plan over all parameters of a model."""
    if plan.optimizer is Optimizer.ADAM:
        return torch.optim.Adam(model.parameters(), lr=plan.lr, betas=(0.9, 0.999), weight_decay=plan.weight_decay)
    if plan.optimizer is Optimizer.MUON:
        return _muon(model, plan)
    nesterov = plan.schedule is Schedule.TRIANGLE and plan.momentum > 0
    return torch.optim.SGD(
        model.parameters(), lr=plan.lr, momentum=plan.momentum, weight_decay=plan.weight_decay, nesterov=nesterov
    )


def _muon(model: nn.Module, plan: Training) -> Muon:
    """Return Muon for the kernels of all convolutions; time kernels of an f are no convolution of their own."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    # A convolution that is trained has no bias here exactly where a BatchNorm follows, which would take it away again.
    without_bias = {id(layer.weight) for layer in layers if layer.bias is None and layer.weight.requires_grad}
    scaled = without_bias if plan.filter_norm else set()
    kernels = {id(layer.weight) for layer in layers} - scaled
    parameters = list(model.parameters())
    return Muon(
        [parameter for parameter in parameters if id(parameter) in kernels],
        [parameter for parameter in parameters if id(parameter) not in kernels | scaled],
        lr=plan.lr,
        momentum=plan.momentum,
        weight_decay=plan.weight_decay,
        vector_rate=plan.vector_rate,
        normalized=[parameter for parameter in parameters if id(parameter) in scaled],
        filter_norm=plan.filter_norm,
    )
