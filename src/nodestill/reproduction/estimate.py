"""How long what is left of a grid will take on this machine, from a calibration of seconds.

Training steps of the smallest teacher and of NODE(1) are timed on random images. All else is counted in
multiply-accumulates: epochs, teachers, evaluations, attacks. Evaluations of f are those of random weights, since those of
trained ones are not known before; where models of the grid are finished on this machine, their times correct the estimate.
Teachers are counted as if no lesson of theirs were kept.
"""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module

from nodestill.attacks import AttackName, paper_budget
from nodestill.data import Dataset
from nodestill.experiments.attack_recipe import RobustnessRecipe
from nodestill.experiments.environment import environment
from nodestill.experiments.members import build_model
from nodestill.experiments.model_recipes import StudentRecipe, TeacherRecipe
from nodestill.models import NeuralODEClassifier, forward_macs, macs
from nodestill.precision import Precision
from nodestill.reproduction.known import Known
from nodestill.reproduction.work import Left, Work, left_of

_SIDE = {Dataset.DIGITS: 8, Dataset.CIFAR10: 32, Dataset.SVHN: 32}  # pixels
_BACKWARD = 3  # a training step over a forward pass, in arithmetic
_ATTACK = 2 / 3  # a step of an attack over one of training: it asks for no gradient of weights
_SMALL_BATCHES = 8, 32  # timed before the whole batch: a slow machine gets no further
_ENOUGH = 2.0  # seconds of a timed step: larger batches are not
_CLASSES = 10
_ALL = Left(training=True, attacks=True, scoring=True)

Model = TeacherRecipe | StudentRecipe


@dataclass(frozen=True)
class Pace:
    """Seconds that a training step takes for each multiply-accumulate of a forward pass."""

    teacher: float
    student: float

    def of(self, model: Model) -> float:
        """Return the pace of a kind of model."""
        return self.teacher if isinstance(model, TeacherRecipe) else self.student


class Seconds(NamedTuple):
    """What one process of one thread needs for one model."""

    training: float  # until its students can begin
    scoring: float  # attacks, and scores under other solvers

    @property
    def both(self) -> float:
        """All of it."""
        return self.training + self.scoring


def estimate(
    done: Sequence[Work], left: Sequence[Work], later: Sequence[Work], known: Known, device: torch.device
) -> tuple[dict[str, Seconds], list[Seconds]]:
    """Return what one process of one thread will need for each work that is left, by run folder, and for each of `later`.

    Args:
        done: Works that lack nothing; they are taken for their times.
        left: Works that lack something.
        later: Works whose settings are not final; whatever is there of them counts for nothing.
        known: The data and the store.
        device: Where it is computed.
    """
    some = [*done, *left]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        pace = _calibrated(some, known.dataset, device)
    finally:
        torch.set_num_threads(threads)
    corrections = _corrections(some, known, pace, str(environment(device)["device"]))

    def of(work: Work, to_do: Left) -> Seconds:
        seconds = _seconds(work, to_do, known, pace)
        return Seconds(*(corrections[type(work.member.model)] * part for part in seconds))

    return {work.name: of(work, _to_do(work, known)) for work in left}, [of(work, _ALL) for work in later]


def _to_do(work: Work, known: Known) -> Left:
    """Return what will be done of a work that is left: without its weights all of it, rows that are there included."""
    return left_of(work, known) if known.store.folder(work.name).is_done else _ALL


def _calibrated(works: Sequence[Work], dataset: Dataset, device: torch.device) -> Pace:
    models = [work.member.model for work in works]
    teachers = [model for model in models if isinstance(model, TeacherRecipe)]
    students = [model for model in models if isinstance(model, StudentRecipe) and not model.twin and model.t1 > 0]
    smallest = min(teachers, key=lambda model: model.depth, default=None)
    shortest = min(students, key=lambda model: model.t1, default=None)
    paces = [_pace(model, dataset, device) if model is not None else None for model in (smallest, shortest)]
    known = [pace for pace in paces if pace is not None] or [0.0]
    return Pace(paces[0] or known[0], paces[1] or known[0])


def _pace(recipe: Model, dataset: Dataset, device: torch.device) -> float:
    """Return the seconds of a training step for each multiply-accumulate, in a batch as large as can soon be timed.

    At full size on a CPU a step of two images takes twice as long for each of them as one of 32.
    """
    model = build_model(recipe, 0, _CLASSES).train()
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in the stubs
    whole, paces = recipe.training.batch_size, list[float]()
    for batch in [*(few for few in _SMALL_BATCHES if few < whole), whole, whole]:
        images = torch.rand(batch, 3, _SIDE[dataset], _SIDE[dataset], device=device)
        seconds = _step_seconds(model, images, recipe.training.precision)
        paces.append(seconds / (batch * _macs(recipe, dataset)))
        if seconds > _ENOUGH:
            break
    return min(paces[-2:])  # of the largest batches: the first step of a size is slower


def _step_seconds(model: Module, images: Tensor, precision: Precision) -> float:
    low = precision is Precision.BFLOAT16
    context: Any = torch.autocast(images.device.type, torch.bfloat16) if low else nullcontext()
    started = time.perf_counter()
    with context:
        labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        F.cross_entropy(model(images).float(), labels).backward()
    float(next(p.grad for p in model.parameters() if p.grad is not None).sum())  # waits for the device
    return time.perf_counter() - started


@cache
def _macs(recipe: Model, dataset: Dataset) -> float:
    """Return the multiply-accumulates of a forward pass with random weights."""
    side = _SIDE[dataset]
    model = build_model(_plainly(recipe), 0, _CLASSES).eval()
    if not isinstance(model, NeuralODEClassifier):
        return float(macs(model, torch.zeros(1, 3, side, side)))
    return forward_macs(model, (3, side, side), _evaluations(model, side)).total


def _evaluations(model: NeuralODEClassifier, side: int) -> Sequence[float]:
    image: Tensor = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.predict(image, raises=False).evaluations_by_equation.double().mean(0).tolist()


def _plainly(recipe: Model) -> Model:
    """Return a recipe without what does not change its arithmetic, so that few are built."""
    return recipe if isinstance(recipe, TeacherRecipe) else replace(recipe, distillation=None, frozen=False)


def _seconds(work: Work, to_do: Left, known: Known, pace: Pace) -> Seconds:
    """Return the seconds of what is to be done of a work."""
    recipe = work.member.model
    each, test = pace.of(recipe) * _macs(_like(recipe), known.dataset), known.counts.test
    training, scoring = 0.0, 0.0
    if to_do.training:
        training = _training_seconds(work, known, pace, each) + each * test / _BACKWARD
    if to_do.attacks:
        scoring += sum(each * _ATTACK * min(asked.images or test, test) * _calls(asked) for asked in work.attacks)
    if to_do.scoring:
        scoring += each * min(work.scored_images, test) * 6  # a finer solver, a tight one, and three like its own
    return Seconds(training, scoring)


def _like(recipe: Model) -> Model:
    """Return a recipe with the training of its kind reset, which does not change what a pass costs."""
    plain = _plainly(recipe)
    return replace(plain, training=replace(plain.training, lr=0.1, label_smoothing=0.0, double_softmax=False, hold_out=False))


def _training_seconds(work: Work, known: Known, pace: Pace, each: float) -> float:
    plan = work.member.training
    images = known.counts.train * (0.9 if plan.hold_out else 1.0)
    taught = 0.0
    if work.teacher is not None:
        taught = pace.of(work.teacher.model) * _macs(_like(work.teacher.model), known.dataset) / _BACKWARD
    return plan.epochs * (images * (each + taught) + each * min(work.monitor_images, known.counts.test) / _BACKWARD)


def _calls(asked: RobustnessRecipe) -> int:
    """Return gradient calls and scorings of one image; MI-FGSM shares steps between radii."""
    pgd = sum(paper_budget(eps).steps for eps in asked.eps_255) if AttackName.PGD in asked.attacks else 0
    shared = max(asked.eps_255) + 4 * len(asked.eps_255) if AttackName.MI_FGSM in asked.attacks else 0
    return pgd + shared


def _corrections(works: Sequence[Work], known: Known, pace: Pace, device: str) -> dict[type, float]:
    """Return what finished models took on this machine over what was expected of them, by kind; 1 if none is finished."""
    found: dict[type, float] = {}
    for kind in (TeacherRecipe, StudentRecipe):
        done = [work for work in works if isinstance(work.member.model, kind) and _is_whole(work, known)]
        took = {work.name: _took(known, work.name, device) for work in done}
        expected = {work.name: _seconds(work, _ALL, known, pace).both for work in done}
        names = [name for name, seconds in took.items() if seconds is not None and expected[name] > 0]
        found[kind] = sum(took[name] or 0.0 for name in names) / sum(expected[name] for name in names) if names else 1.0
    return found


def _is_whole(work: Work, known: Known) -> bool:
    return left_of(work, known).nothing and known.store.folder(work.name).is_measured


def _took(known: Known, name: str, device: str) -> float | None:
    folder = known.store.folder(name)
    if folder.read("environment.json").get("device") != device:
        return None
    evaluation = folder.read("evaluation.json")["seconds"]
    rows = [*folder.rows("training.jsonl"), *folder.rows("robustness.jsonl"), *folder.rows("solvers.jsonl")]
    return evaluation + sum(row["seconds"] for row in rows)
