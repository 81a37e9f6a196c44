"""Training one member: build, resume, train, save after each epoch, evaluate, mark as done."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from nodestill.data import ImageSet, channel_statistics
from nodestill.errors import InputError
from nodestill.experiments.alone import alone_in
from nodestill.experiments.environment import environment
from nodestill.experiments.member_training import MemberTraining
from nodestill.experiments.members import build_model
from nodestill.experiments.model_recipes import StudentRecipe, TeacherRecipe
from nodestill.experiments.objective import in_precision_of, objective_of, teacher_of
from nodestill.experiments.processes import Watch, in_processes, silent
from nodestill.experiments.scoring import monitor, score
from nodestill.experiments.store import RunFolder
from nodestill.models import NeuralODEClassifier, Normalize, Whitening
from nodestill.training.loop import EpochRecord, Learner, fabric_for, set_up, steps_per_epoch, train
from nodestill.training.memory import keep_freed_memory

_WHITENED_IMAGES = 5000


def train_member(asked: MemberTraining, accelerator: str, devices: int) -> None:
    """Train a member, in this process or in one process per device, and leave a finished folder.

    Raises:
        TrainingError: If the loss stops being a number, or a process of several fails.
        DataError: If the folder cannot be read or written.
        InputError: If there are no such devices, or another command trains it.
    """
    fabric = fabric_for(accelerator, devices, asked.member.training.precision)
    with alone_in(asked.folder.path):
        if devices > 1:
            in_processes(fabric, partial(_fit_watched, asked=replace(asked, watch=silent)), asked.watch)
        else:
            fabric.launch()
            _fit(fabric, asked)


def _fit_watched(fabric: Any, watch: Watch, asked: MemberTraining) -> None:
    _fit(fabric, replace(asked, watch=watch))


def device_of(accelerator: str) -> torch.device:
    """Return the device that Fabric chooses for an accelerator, for work in one process.

    Where that can only be the CPU, Lightning is not asked: its import takes seconds.
    """
    if accelerator == "cpu" or (accelerator == "auto" and not torch.accelerator.is_available()):
        return torch.device("cpu")
    return fabric_for(accelerator).device


def _fit(fabric: Any, asked: MemberTraining) -> None:
    keep_freed_memory()
    device, folder, watch = fabric.device, asked.folder, asked.watch if fabric.global_rank == 0 else silent
    asked = replace(asked, train_set=asked.train_set.to(device), test_set=asked.test_set.to(device), watch=watch)
    mean, (red, green, blue) = channel_statistics(asked.train_set)
    std = (red or 1.0, green or 1.0, blue or 1.0)  # a colour that never varies is left as it is
    model = build_model(asked.member.model, asked.member.seed, asked.train_set.num_classes, mean, std).to(device)
    learn_whitening(model, asked.train_set)
    learner = set_up(model, asked.member.training, fabric)
    done = folder.load_state(model, learner.optimizer.optimizer)
    _check_processes(folder, done, fabric.world_size)
    if fabric.global_rank == 0:
        folder.write("recipe.json", asked.description())
        folder.write("environment.json", environment(device) | {"processes": fabric.world_size})
        folder.write_rows("training.jsonl", folder.rows("training.jsonl")[:done])  # an epoch may be logged but not saved
    _train(learner, model, asked, done)
    if fabric.global_rank == 0:
        folder.save_weights(model)
        folder.write("evaluation.json", score(model, asked.test_set, teacher_of(asked)))
        folder.finish()
    fabric.barrier()


def _check_processes(folder: RunFolder, done: int, processes: int) -> None:
    """Refuse to go on in another number of processes: each takes the batch statistics of its share."""
    before = folder.read("environment.json").get("processes", 1) if done else processes
    if before != processes:
        raise InputError(
            f"{folder.path} was begun in {before} process(es) and would go on in {processes}, with other batch statistics. "
            f"Use --devices {before}, or another --store."
        )


def learn_whitening(model: nn.Module, images: ImageSet) -> None:
    """Set a whitening first layer, where the model has one, from training images taken at equal distances."""
    every = max(1, len(images) // _WHITENED_IMAGES)
    layers = list(model.modules())
    for layer in (layer for layer in layers if isinstance(layer, Whitening)):
        normalize = next(layer for layer in layers if isinstance(layer, Normalize))
        layer.learn(normalize(images.images[::every].float().div(255)))


def _train(learner: Learner, model: nn.Module, asked: MemberTraining, done: int) -> None:
    """Train from epoch `done` on; after each epoch log it, then save what a resume needs."""
    plan, fabric = asked.member.training, learner.fabric
    total = plan.epochs * steps_per_epoch(asked.train_set, plan)
    steps_done = done * steps_per_epoch(asked.train_set, plan)

    def on_step(step: int, loss: float) -> None:
        nonlocal steps_done
        steps_done += 1
        asked.watch(asked.task, steps_done, total, "" if loss != loss else f"loss {loss:.3f}")

    def on_epoch(record: EpochRecord) -> None:
        refine(model, asked.member.model, plan.epochs)
        if fabric.global_rank == 0:
            measured = monitor(model, asked.test_set, asked.monitor_images)
            asked.folder.append("training.jsonl", replace(record, measured=measured))
            asked.folder.save_state(model, learner.optimizer.optimizer, record.epoch)
        fabric.barrier()
        refine(model, asked.member.model, record.epoch)

    _require_sides(model, asked)
    refine(model, asked.member.model, done)
    objective = in_precision_of(fabric, objective_of(learner.model, model, asked))
    seed = asked.member.seed
    train(learner, objective, asked.train_set, plan, seed=seed, epochs_done=done, on_epoch=on_epoch, on_step=on_step)


def _require_sides(model: nn.Module, asked: MemberTraining) -> None:
    """Refuse, before the first epoch, sizes of images that are larger than the images or too small for the model."""
    image = asked.train_set.images[:1].float().div(255)
    smallest, sides = min(image.shape[2:]), asked.member.training.sides
    try:
        with torch.no_grad():
            for side in {*sides}:
                model.eval()(image[:, :, :side, :side])
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"training.sides has {sorted({*sides})} pixels, which {asked.task} cannot take: {reason}") from None
    if max(sides, default=1) > smallest:
        raise InputError(f"training.sides must be at most the {smallest} pixels of the images, got {max(sides)}.")


def refine(model: nn.Module, recipe: TeacherRecipe | StudentRecipe, epoch: int) -> None:
    """Give a student, in place, the solver that its recipe has for an epoch, from 0."""
    if isinstance(recipe, StudentRecipe) and isinstance(model, NeuralODEClassifier):
        model.solver = recipe.solver_in(epoch)
