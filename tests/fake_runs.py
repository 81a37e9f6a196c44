"""Run folders of models that nobody trained: what a grid reads of them, and hands that make them."""

import math
from pathlib import Path
from typing import Any

from nodestill.data import Dataset, count_images, identify
from nodestill.experiments import Store
from nodestill.experiments.stages import attack_key
from nodestill.flags import to_hex
from nodestill.intervals import wilson_interval
from nodestill.reproduction.known import Known
from nodestill.reproduction.schedule import Happened, News
from nodestill.reproduction.work import Work

IMAGES = 1000


def known(root: Path) -> Known:
    """The digits and a store."""
    return Known(Dataset.DIGITS, identify(Dataset.DIGITS, None), count_images(Dataset.DIGITS, None), Store(root))


def made_up(work: Work) -> float:
    """An accuracy that belongs to a run folder, between 40 and 80 %."""
    return 0.4 + int(work.name[-8:], 16) % 401 / 1000


def finish(work: Work, known: Known, accuracy: float | None = None, evaluations: float = 12.0, *, weights: bool = True) -> None:
    """Write the folder of a finished work; its accuracy under attack falls with the radius."""
    folder, share = known.store.folder(work.name), made_up(work) if accuracy is None else accuracy
    folder.write("recipe.json", {**work.member.description(), "class_names": list("0123456789"), "image_size": [8, 8]})
    folder.write("environment.json", {"device": "none", "commit": "0123456789"})
    folder.write_rows("training.jsonl", [_epoch(number + 1, evaluations) for number in range(work.member.training.epochs)])
    folder.write("evaluation.json", _evaluation(share, evaluations if hasattr(work.member.model, "t1") else None))
    rows = [_row(work, known, asked, attack, eps, share) for asked in work.attacks for attack, eps in _places(asked)]
    folder.write_rows("robustness.jsonl", rows)
    if work.scored_images:
        folder.write_rows("solvers.jsonl", [_solver(name, share) for name in ("own", "finer", "other order", "no equation")])
    if weights:
        (folder.path / "weights.safetensors").write_bytes(b"weights")
        folder.mark("DONE")


def _epoch(epoch: int, evaluations: float) -> dict[str, Any]:
    return {"epoch": epoch, "seconds": 2.0, "lr": 0.1, "loss": 1.0, "parts": {}, "measured": {"evaluations": evaluations}}


def _evaluation(share: float, evaluations: float | None) -> dict[str, Any]:
    low, high = wilson_interval(round(share * IMAGES), IMAGES)
    clean = {"images": IMAGES, "accuracy": round(share * IMAGES) / IMAGES, "accuracy_low": low, "accuracy_high": high}
    return {
        "clean": {**clean, "failed": 0, "agreement": None},
        "evaluations": None if evaluations is None else {"mean": evaluations, "min": 8, "max": 20, "histogram": {"12": IMAGES}},
        "cost": {"parameters": 1000, "macs": 2e6, "macs_per_evaluation": 1e5},
        "seconds": 1.0,
    }


def _places(asked: Any) -> list[tuple[str, int]]:
    return [(attack.value, eps) for attack in asked.attacks for eps in asked.eps_255]


def _row(work: Work, known: Known, asked: Any, attack: str, eps: int, share: float) -> dict[str, Any]:
    images = IMAGES if asked.images != 10 else 500  # more than are asked for: a made-up row is to be decided by its share
    correct = round(images * share * math.exp(-eps / 10))
    which = to_hex([place * correct // images < (place + 1) * correct // images for place in range(images)])  # evenly
    low, high = wilson_interval(correct, images)
    same = {"images": images, "correct": correct, "accuracy": correct / images, "wilson_low": low, "wilson_high": high}
    key = attack_key(asked, known.identity)
    return {**same, "recipe": key, "attack": attack, "eps_255": eps, "failed_images": 0, "which": which, "seconds": 1.0}


def _solver(name: str, share: float) -> dict[str, Any]:
    gap = {"own": 0.0, "finer": 0.002, "other order": -0.003, "no equation": -0.2}[name]
    scored = {"accuracy": share + gap, "difference": gap, "agreement": 0.99 - abs(gap)}
    return {"name": name, "data": "digits", "images": 50, **scored, "evaluations": 12.0}


class FakeHands:
    """Hands that make up what is asked for, one work after the other, and note the order.

    Args:
        known: The store.
        failing: Parts of the titles of works that fail.
        size: Works at a time.
    """

    def __init__(self, known: Known, failing: tuple[str, ...] = (), size: int = 12) -> None:
        self.known, self.failing, self.size = known, failing, size
        self.order: list[str] = []
        self.waiting: list[Work] = []
        self.closed = False

    def free(self) -> int:
        return self.size - len(self.waiting)

    def give(self, work: Work) -> None:
        assert self.free() > 0
        teacher = work.teacher
        assert teacher is None or self.known.store.folder(teacher.folder).is_done, "its teacher is not there"
        self.order.append(work.name)
        self.waiting.append(work)

    def wait(self, seconds: float) -> list[News]:
        ended, self.waiting = self.waiting, []
        return [news for work in ended for news in self.done(work)]

    def done(self, work: Work) -> list[News]:
        """What is told of a work that has ended."""
        if any(part in work.name for part in self.failing):
            return [News(work.name, Happened.FAILED, note="it was to fail")]
        self.known.store.folder(work.name).forget_rows()
        finish(work, self.known)
        return [News(work.name, Happened.PROGRESS, "train", 1, 2, ""), News(work.name, Happened.DONE)]

    def close(self) -> None:
        self.closed = True
