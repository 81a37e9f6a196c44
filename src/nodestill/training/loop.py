"""The one training loop: teacher, undistilled and distilled student differ in their objective alone.

All randomness is a function of (seed, epoch), so a training that was stopped after any epoch goes on as if it had not been.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from nodestill.data import Batch, ImageSet, train_batches
from nodestill.errors import InputError, TrainingError
from nodestill.precision import Precision
from nodestill.training.objectives import Objective
from nodestill.training.schedule import Training, build_optimizer, learning_rate

# Fabric tells what it was asked for, in each of its processes, and by the logger of whichever of its packages was loaded last.
# Their own levels are set when they are loaded, these are not.
logging.getLogger("lightning.fabric.utilities").setLevel(logging.WARNING)
logging.getLogger("lightning.pytorch.utilities").setLevel(logging.WARNING)


@dataclass(frozen=True)
class EpochRecord:
    """One row of the epoch log."""

    epoch: int  # counted from 1
    seconds: float  # of training alone
    lr: float  # of the last step
    loss: float  # mean over the steps
    parts: Mapping[str, float]  # means over the steps, by name
    measured: Mapping[str, float] = field(default_factory=dict)  # what was evaluated after the epoch, by name
    schema: int = 1


class Learner(NamedTuple):
    """A model and its optimiser, set up by Fabric for a device, a precision and a number of processes."""

    fabric: Any  # a lightning Fabric; imported where it is made, because its import takes seconds
    model: nn.Module
    optimizer: Any  # Fabric's wrapper of a torch.optim.Optimizer


def fabric_for(accelerator: str, devices: int = 1, precision: Precision = Precision.FLOAT32) -> Any:
    """Return a Fabric for 'cpu', 'cuda', 'mps' or 'auto', a number of processes, one per device, and an arithmetic.

    Processes are spawned, so that only the training runs more than once, not the program around it.

    Raises:
        InputError: If this machine does not have what is asked for.
    """
    _require_device(accelerator)
    from lightning.fabric import Fabric

    arithmetic: Literal["bf16-mixed", "32-true"] = "bf16-mixed" if precision is Precision.BFLOAT16 else "32-true"
    strategy = "ddp_spawn" if devices > 1 else "auto"
    try:
        return Fabric(accelerator=accelerator, devices=devices, strategy=strategy, precision=arithmetic)
    except (RuntimeError, ValueError, TypeError) as error:  # Lightning's own exceptions are among these
        reason = " ".join(str(error).split()).rstrip(".")
        raise InputError(
            f"This machine cannot compute on {devices} device(s) of kind {accelerator!r}: {reason}. "
            "Choose others, or 1 and auto."
        ) from None


def _require_device(accelerator: str) -> None:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(accelerator, True):
        others = ", ".join(["cpu", *(name for name, usable in there.items() if usable)])
        raise InputError(f"There is no device {accelerator!r} on this machine that PyTorch can use. Choose {others} or auto.")


def set_up(model: nn.Module, plan: Training, fabric: Any) -> Learner:
    """Move a model to its device and wrap it, before an objective is built from it: only then are gradients synchronised.

    Raises:
        InputError: If the batch does not divide among the processes.
    """
    if plan.batch_size % fabric.world_size:
        raise InputError(
            f"A batch of {plan.batch_size} does not divide among {fabric.world_size} processes. "
            "Choose a batch_size that is a multiple of the devices."
        )
    model = model.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in the stubs
    optimizer = build_optimizer(model, plan)
    return Learner(fabric, *fabric.setup(torch.compile(model, dynamic=False) if plan.compiled else model, optimizer))


def train(
    learner: Learner,
    objective: Objective,
    data: ImageSet,
    plan: Training,
    *,
    seed: int,
    epochs_done: int = 0,
    on_epoch: Callable[[EpochRecord], None],
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Minimise an objective over the training images, from the end of epoch `epochs_done` to the last.

    Args:
        learner: What `set_up` returned. Its model is trained in place.
        objective: Built from `learner.model`.
        data: Training images, on the model's device.
        plan: Optimiser, schedule, batches, augmentation.
        seed: Decides order and augmentation, together with the epoch.
        epochs_done: Number of epochs that model and optimiser have behind them.
        on_epoch: Called after each epoch with its record; a good place to save.
        on_step: Called after each optimiser step with its number in this epoch and, now and then, the loss; else NaN.

    Raises:
        TrainingError: If the loss is no longer a finite number at the end of an epoch.
    """
    for epoch in range(epochs_done, plan.epochs):
        started = time.perf_counter()
        learner.model.train()
        totals, lr = _epoch(learner, objective, data, plan, seed, epoch, on_step)
        means = {name: float(value) for name, value in totals.items()}
        loss = means.pop("loss")
        if not torch.isfinite(torch.tensor(loss)):
            raise TrainingError(f"Training diverged: the mean loss of epoch {epoch + 1} is {loss}. Lower lr (now {plan.lr:g}).")
        on_epoch(EpochRecord(epoch + 1, time.perf_counter() - started, lr, loss, means))


def _epoch(
    learner: Learner,
    objective: Objective,
    data: ImageSet,
    plan: Training,
    seed: int,
    epoch: int,
    on_step: Callable[[int, float], None],
) -> tuple[dict[str, Tensor], float]:
    """Train for one epoch; return the mean of each part of the loss, left on the device, and the last learning rate."""
    totals: dict[str, Tensor] = {}
    steps, lr = steps_per_epoch(data, plan), 0.0
    side = plan.sides[epoch] if epoch < len(plan.sides) else None
    batches = train_batches(data, plan.batch_size, plan.augment, seed=seed, epoch=epoch, side=side)
    for step, batch in enumerate(batches):
        lr = learning_rate(plan, epoch * steps + step, steps)
        parts = _step(learner, objective, _share_of(batch, learner.fabric), lr)
        for name, value in parts.items():
            totals[name] = totals.get(name, torch.zeros_like(value)) + value / steps
        on_step(step + 1, float(parts["loss"]) if step % 50 == 0 else float("nan"))
    return totals, lr


def _step(learner: Learner, objective: Objective, batch: Batch, lr: float) -> dict[str, Tensor]:
    for group in learner.optimizer.param_groups:
        group["lr"] = lr
    learner.optimizer.zero_grad(set_to_none=True)
    loss = objective(batch)
    learner.fabric.backward(loss.total)
    learner.optimizer.step()
    return {"loss": loss.total.detach(), **loss.parts}


def steps_per_epoch(data: ImageSet, plan: Training) -> int:
    """Return the number of optimiser steps in one pass over the images."""
    return -(-len(data) // plan.batch_size)


def _share_of(batch: Batch, fabric: Any) -> Batch:
    """Return this process's part of a batch: every world_size-th image.

    The last batch of an epoch may not divide: then its first images come again, so that all parts are equally large and
    none is empty, whose mean loss would not be a number.
    """
    if fabric.world_size == 1:
        return batch
    count = len(batch.labels)
    share = -(-count // fabric.world_size)
    mine = torch.arange(share, device=batch.labels.device) * fabric.world_size + fabric.global_rank
    return Batch(*[part[mine % count] for part in batch])
