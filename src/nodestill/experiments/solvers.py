"""Does an accuracy belong to the differential equation, or to the solver it was trained with?

A finished Neural ODE is scored again with the same weights under a finer solver, under an adaptive one at a tight tolerance and
with the equations left out. If the first two agree with what was reported, and the last does not, the equation does the work.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from nodestill.data import ImageSet
from nodestill.errors import InputError
from nodestill.experiments.fit import device_of
from nodestill.experiments.loaded import Loaded, load_run, require_classes
from nodestill.experiments.plain import to_plain
from nodestill.experiments.store import RunFolder
from nodestill.experiments.workspace import Workspace
from nodestill.intervals import wilson_interval
from nodestill.models import NeuralODEClassifier
from nodestill.ode import Method, Solver
from nodestill.shapes import Images, Logits
from nodestill.training import evaluate

_BATCH = 250
_FINER, _TIGHTER = 4, 16
_ORDERS = {Method.DOPRI5: Method.BOSH3, Method.TSIT5: Method.BOSH3}  # of any other adaptive method: dopri5
_FIXED_ORDERS = {Method.RK4: Method.MIDPOINT}  # of any other with fixed steps: rk4
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
        Rows "own", "finer", "other order", "adaptive", "no equation", and, apart from all, "own, flips averaged".

    Raises:
        InputError: If the model has no equation.
    """
    model = loaded.model
    if not isinstance(model, NeuralODEClassifier) or model.t1 == 0:
        raise InputError(f"{loaded.recipe['title']} solves no equation, so there are no solvers to compare. Name a student.")
    own: Tensor | None = None
    for variant in _variants(model):
        started = time.perf_counter()
        found = _score(variant, data, lambda done, name=variant.name: watch(name, done, len(data), ""))
        own = found.predicted if own is None else own
        yield _row(variant, found, own, data.labels, time.perf_counter() - started)


class _Variant(NamedTuple):
    name: str
    model: NeuralODEClassifier
    flips: bool = False  # whether the logits of the mirrored image are added


class _Found(NamedTuple):
    predicted: Tensor  # class of each image, -1 without finite logits
    evaluations: float


def score_solvers(folder: RunFolder, data: ImageSet, workspace: Workspace) -> list[SolverRow]:
    """Score a finished model under other solvers and keep the rows in solvers.jsonl, in place of earlier ones on these images.

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
    same = (data.provenance, len(data))
    others = [row for row in folder.rows("solvers.jsonl", "data", "images") if (row["data"], row["images"]) != same]
    folder.write_rows("solvers.jsonl", others + [{**to_plain(row), "data": data.provenance} for row in rows])
    return rows


def _variants(model: NeuralODEClassifier) -> list[_Variant]:
    own = model.solver
    if own.steps is None:
        finer = replace(own, rtol=own.rtol / _TIGHTER, atol=own.atol / _TIGHTER)
    else:
        finer = replace(own, steps=_FINER * own.steps)
    tight = Solver(Method.DOPRI5, rtol=_TIGHT, atol=_TIGHT)
    return [
        _Variant("own", model),
        _Variant("finer", model.with_solver(finer)),
        _Variant("other order", model.with_solver(_of_other_order(own))),
        _Variant("adaptive", model.with_solver(tight)),
        _Variant("no equation", model.with_solver(own, t1=0.0)),
        _Variant("own, flips averaged", model, flips=True),
    ]


def _of_other_order(own: Solver) -> Solver:
    """Return a solver of another order, at the same tolerance or with as many steps."""
    if own.steps is None:
        return replace(own, method=_ORDERS.get(own.method, Method.DOPRI5))
    return replace(own, method=_FIXED_ORDERS.get(own.method, Method.RK4))


def scored_already(folder: RunFolder, images: int) -> bool:
    """Return whether a folder has these rows under every solver, of so many images."""
    found = folder.rows("solvers.jsonl", "name", "images")
    return any((row["name"], row["images"]) == ("other order", images) for row in found)


def _score(variant: _Variant, data: ImageSet, on_batch: Callable[[int], None]) -> _Found:
    found, calls = [], []

    def logits_fn(images: Images) -> Logits:
        views = [images, images.flip(3)] if variant.flips else [images]
        predictions = [variant.model.predict(view, raises=False) for view in views]
        logits = torch.stack([prediction.logits for prediction in predictions]).sum(0)
        calls.append(torch.stack([prediction.evaluations for prediction in predictions]).sum(0))
        found.append(torch.where(torch.isfinite(logits).all(1), logits.argmax(1), -1))
        return logits

    evaluate(logits_fn, data, _BATCH, on_batch=on_batch)
    return _Found(torch.cat(found), float(torch.cat(calls).double().mean()))


def _row(variant: _Variant, found: _Found, own: Tensor, labels: Tensor, seconds: float) -> SolverRow:
    correct, count = int((found.predicted == labels).sum()), len(labels)
    low, high = wilson_interval(correct, count)
    return SolverRow(
        name=variant.name,
        solver=variant.model.solver,
        t1=variant.model.t1,
        images=count,
        accuracy=correct / count,
        accuracy_low=low,
        accuracy_high=high,
        difference=(correct - int((own == labels).sum())) / count,
        agreement=float(((found.predicted == own) & (found.predicted >= 0)).double().mean()),
        evaluations=found.evaluations,
        failed=int((found.predicted < 0).sum()),
        seconds=seconds,
    )
