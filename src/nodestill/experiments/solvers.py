"""Does an accuracy belong to the differential equation, or to the solver it was trained with?

A finished Neural ODE is scored again with the same weights under a finer solver, under an adaptive one at a tight tolerance and
with the equations left out. If the first two agree with what was reported, and the last does not, the equation does the work.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from nodestill.data import ImageSet
from nodestill.errors import InputError
from nodestill.experiments.fit import device_of
from nodestill.experiments.loaded import Loaded, load_run
from nodestill.experiments.plain import to_plain
from nodestill.experiments.stages import Workspace, require_classes
from nodestill.experiments.store import RunFolder
from nodestill.intervals import wilson_interval
from nodestill.models import NeuralODEClassifier
from nodestill.ode import GradientMode, Method, Solver
from nodestill.shapes import Images, Logits
from nodestill.training import evaluate

_BATCH = 250
_FINER = 4
_TIGHT = 1e-5


@dataclass(frozen=True)
class SolverRow:
    """One scoring. Shares lie in [0, 1]."""

    name: str
    solver: Solver
    t1: float
    images: int
    accuracy: float
    accuracy_low: float  # 95 % Wilson interval
    accuracy_high: float
    difference: float  # to the accuracy under the model's own solver
    agreement: float  # share of images in the same class as under the model's own solver
    evaluations: float  # of f per image, mean
    failed: int  # images without finite logits; they count as wrong
    seconds: float
    schema: int = 1


def solver_rows(
    loaded: Loaded, data: ImageSet, watch: Callable[[str, int, int, str], None] = lambda task, done, total, note: None
) -> Iterator[SolverRow]:
    """Score a model under its own solver and under others, one row after the other.

    Args:
        loaded: A finished Neural ODE; f is scored in float32.
        data: Images of its classes.
        watch: Told of progress as (task, done, total, note).

    Yields:
        Rows "own", "finer", "adaptive", "no equation", and, for comparison apart from all, "own, flips averaged".

    Raises:
        InputError: If the model has no equation.
    """
    model = loaded.model
    if not isinstance(model, NeuralODEClassifier) or model.t1 == 0:
        raise InputError(f"{loaded.recipe['title']} solves no equation, so there are no solvers to compare. Name a student.")
    own: torch.Tensor | None = None
    for name, other in _variants(model).items():
        started = time.perf_counter()
        predicted, calls, failed = _predictions(other, data, lambda done, name=name: watch(name, done, len(data), ""), name)
        own = predicted if own is None else own
        yield _row(name, other, data, (predicted, own, calls, failed), time.perf_counter() - started)


def score_solvers(folder: RunFolder, data: ImageSet, workspace: Workspace) -> list[SolverRow]:
    """Score a finished model under other solvers and keep the rows in solvers.jsonl, in place of earlier ones on these data.

    Args:
        folder: Of the model.
        data: Test images.
        workspace: What computes.

    Raises:
        DataError: If the folder is not finished or damaged, or the images have other classes than the model.
        InputError: If the model has no equation.
    """
    device = device_of(workspace.accelerator)
    loaded = load_run(folder, device)
    require_classes(folder, loaded.class_names, data)
    rows = list(solver_rows(loaded, data.to(device), workspace.watch))
    others = [row for row in folder.rows("solvers.jsonl", "data") if row["data"] != data.provenance]
    folder.write_rows("solvers.jsonl", others + [{**to_plain(row), "data": data.provenance} for row in rows])
    return rows


def _variants(model: NeuralODEClassifier) -> dict[str, NeuralODEClassifier]:
    own = model.solver
    if own.method.is_adaptive:
        finer = replace(own, rtol=own.rtol / _FINER**2, atol=own.atol / _FINER**2)
    else:
        finer = replace(own, steps=_FINER * (own.steps or 1))
    tight = Solver(Method.DOPRI5, rtol=_TIGHT, atol=_TIGHT, gradient=GradientMode.RECOMPUTE)
    return {
        "own": model,
        "finer": model.with_solver(finer),
        "adaptive": model.with_solver(tight),
        "no equation": model.with_solver(own, t1=0.0),
        "own, flips averaged": model,
    }


def _predictions(
    model: NeuralODEClassifier, data: ImageSet, on_batch: Callable[[int], None], name: str
) -> tuple[torch.Tensor, float, int]:
    """Return the predicted classes, the mean evaluations, and how many images have no finite logits (class -1)."""
    found, calls = [], []

    def logits_fn(images: Images) -> Logits:
        prediction = model.predict(images, raises=False)
        logits = prediction.logits
        if name.endswith("flips averaged"):
            logits = logits + model.predict(images.flip(3), raises=False).logits
        calls.append(prediction.evaluations)
        found.append(torch.where(torch.isfinite(logits).all(1), logits.argmax(1), -1))
        return logits

    evaluate(logits_fn, data, _BATCH, on_batch=on_batch)
    predicted = torch.cat(found)
    return predicted, float(torch.cat(calls).double().mean()), int((predicted < 0).sum())


def _row(name: str, model: NeuralODEClassifier, data: ImageSet, found: tuple, seconds: float) -> SolverRow:
    predicted, own, calls, failed = found
    correct, before = predicted == data.labels, own == data.labels
    low, high = wilson_interval(int(correct.sum()), len(data))
    return SolverRow(
        name=name,
        solver=model.solver,
        t1=model.t1,
        images=len(data),
        accuracy=float(correct.double().mean()),
        accuracy_low=low,
        accuracy_high=high,
        difference=float(correct.double().mean() - before.double().mean()),
        agreement=float(((predicted == own) & (predicted >= 0)).double().mean()),
        evaluations=calls,
        failed=failed,
        seconds=seconds,
    )
