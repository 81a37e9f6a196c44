"""Scoring a finished model on clean images: accuracy, calibration, evaluations of f per image, cost.

Everything is scored in float32, whatever the model was trained in.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from nodestill.attacks import Subject
from nodestill.data import ImageSet
from nodestill.models import NeuralODEClassifier, forward_macs, macs, parameter_count
from nodestill.precision import Precision
from nodestill.shapes import Images, Logits
from nodestill.subjects.of_model import subject_of_model
from nodestill.training import evaluate

_BATCH = 500


def scored(model: nn.Module) -> nn.Module:
    """Return a model as it is scored and attacked: a Neural ODE with f in float32, sharing its weights."""
    if not isinstance(model, NeuralODEClassifier):
        return model
    return model.with_solver(replace(model.solver, precision=Precision.FLOAT32))


def subject_of(model: nn.Module, on_call: Callable[[], None] = lambda: None) -> Subject:
    """Return what an attack may know of a model: failed solves give NaN logits instead of an exception.

    Args:
        model: In evaluation mode, its parameters frozen.
        on_call: Called before each call of the model as deployed, for a progress bar.
    """
    subject = subject_of_model(model)
    return subject._replace(logits=_watched(subject.logits, on_call))


def _watched(logits_fn: Callable[[Images], Logits], on_call: Callable[[], None]) -> Callable[[Images], Logits]:
    def call(images: Images) -> Logits:
        on_call()
        return logits_fn(images)

    return call


def monitor(model: nn.Module, data: ImageSet, images: int) -> dict[str, float]:
    """Return accuracy, loss and mean evaluations on the first images of a set, leaving the model in its mode."""
    if images == 0:
        return {}
    was_training = model.training
    model.eval()
    evaluation, counts = _evaluate(scored(model), data.first(images), None)
    model.train(was_training)
    measured = {"accuracy": evaluation.accuracy, "loss": evaluation.loss}
    return measured | ({"evaluations": float(counts.sum(1).double().mean())} if counts is not None else {})


def score(model: nn.Module, data: ImageSet, teacher: nn.Module | None) -> dict[str, Any]:
    """Return the content of evaluation.json: `clean`, `evaluations`, `cost`, `seconds`; see `records.RunRecords`."""
    started = time.perf_counter()
    model.eval()
    evaluation, counts = _evaluate(scored(model), data, teacher)
    seconds = time.perf_counter() - started
    return {
        "clean": evaluation,
        "evaluations": None if counts is None else evaluation_counts(counts.sum(1)),
        "cost": _cost(model, data, counts),
        "seconds": seconds,
        "schema": 1,
    }


def _evaluate(model: nn.Module, data: ImageSet, teacher: nn.Module | None) -> tuple[Any, Tensor | None]:
    counts: list[Tensor] = []

    def logits_fn(images: Images) -> Logits:
        if not isinstance(model, NeuralODEClassifier):
            return model(images)
        prediction = model.predict(images, raises=False)
        counts.append(prediction.evaluations_by_equation)
        return prediction.logits

    evaluation = evaluate(logits_fn, data, _BATCH, teacher_fn=teacher)
    return evaluation, torch.cat(counts) if counts else None


def evaluation_counts(counts: Tensor) -> Mapping[str, Any]:
    """Return mean, extremes and histogram of the evaluations of f per image (NFE)."""
    histogram = dict(sorted(Counter(counts.tolist()).items()))
    return {
        "mean": float(counts.double().mean()),
        "min": int(counts.min()),
        "max": int(counts.max()),
        "histogram": {str(nfe): images for nfe, images in histogram.items()},
    }


def _cost(model: nn.Module, data: ImageSet, counts: Tensor | None) -> dict[str, float | int | None]:
    """Return parameters and multiply-accumulates of one image; those of a Neural ODE at its mean evaluations.

    With several equations an evaluation costs what it does on the average over all that are made; with t1 = 0, where none is
    made, what the dearest would.
    """
    channels, height, width = data.images.shape[1:]
    if not isinstance(model, NeuralODEClassifier) or counts is None:
        example = torch.zeros(1, channels, height, width, device=data.images.device)
        return {"parameters": parameter_count(model), "macs": macs(model, example), "macs_per_evaluation": None}
    means = counts.double().mean(0).tolist()
    cost = forward_macs(model, (channels, height, width), means)
    unused = 0 if model.t1 else sum(parameter_count(f) for _, f in model.equations)  # stem only: f is there, not called
    each = cost.dynamics / sum(means) if model.t1 else max(cost.per_evaluation)
    return {
        "parameters": parameter_count(model) - unused,
        "macs": cost.total,
        "macs_per_evaluation": each,
        "macs_in_f": cost.dynamics,
    }
