"""Records of an experiment that was never run, made by formula: like those of a real one in shape and in what goes wrong."""

import base64
import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nodestill.experiments.records import AuditRecords, Experiment, RunRecords
from nodestill.intervals import wilson_interval

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGES = 1000

_MODELS: dict[str, dict[str, Any]] = {
    "teacher": {"title": "ResNet-20", "correct": 917, "parameters": 269_722, "macs": 40_551_040, "resists": 2.2},
    "distilled": {"title": "NODE(1)", "correct": 873, "parameters": 1_262_986, "macs": 1_214_310_400, "resists": 4.4},
    "undistilled": {"title": "NODE(1)", "correct": 856, "parameters": 1_262_986, "macs": 1_019_215_872, "resists": 3.1},
    "discrete-twin": {"title": "discrete twin", "correct": 881, "parameters": 4_262_986, "macs": 1_214_310_400, "resists": 4.0},
    "stem-only": {"title": "stem only", "correct": 741, "parameters": 1_262_986, "macs": 58_982_400, "resists": 2.7},
}
USUAL = ("teacher", "distilled", "undistilled", "stem-only")
_SOLVED: dict[str, dict[int, int]] = {
    "distilled": {14: 40, 20: 410, 26: 430, 32: 110, 38: 10},
    "undistilled": {14: 310, 20: 520, 26: 160, 32: 10},
    "stem-only": {0: 1000},
}


def made_experiment(*roles: str) -> Experiment:
    """Return an experiment with the models of these roles, or with the usual four."""
    recipe = {"name": "cifar10-node1", "dataset": "cifar10", "seed": 0, "teacher": {"depth": 20}, "student": {"t1": 1.0}}
    return Experiment("cifar10-node1", recipe, tuple(made_run(role) for role in roles or USUAL))


def made_run(role: str) -> RunRecords:
    """Return the records of one finished, attacked model."""
    model = _MODELS[role]
    return RunRecords(
        path=Path(f"runs/student-cifar10-{role}-97a3d9{len(role):02d}"),
        role=role,
        title=model["title"],
        recipe={
            "role": role,
            "title": model["title"],
            "dataset": "cifar10",
            "provenance": "CIFAR-10, JPEG mirror",
            "class_names": list(CLASSES),
            "seed": 0,
            "model": {"t1": 1.0, "solver": {"method": "dopri5", "rtol": 1e-3, "atol": 1e-3}},
        },
        environment={"nodestill": "0.1.0", "commit": "6101d99f3c", "python": "3.11.9", "torch": "2.6.0+cpu", "threads": 1},
        training=[_epoch(role, epoch) for epoch in range(1, 31)],
        evaluation=_evaluation(role),
        robustness=[_row(role, attack, eps) for attack in ("pgd", "mi-fgsm") for eps in range(21)],
        gallery=[_example(label, eps_255=8) for label in range(8)] if role == "distilled" else [],
    )


def audited(run: RunRecords, verdict: str, *checks: str) -> RunRecords:
    """Return a run with an audit of some verdict, given by these checks; one more check passes."""
    summary = {"verdict": verdict, "images": 64, "eps_255": 4, "asked": {"tier": {"name": "quick"}}}
    rows = [{"name": name, "verdict": verdict} for name in checks] + [{"name": "planted", "verdict": "pass"}]
    worst = [{"eps_255": eps, "robust_accuracy": share} for eps, share in ((0, 0.875), (4, 0.25), (8, 0.03125))]
    return replace(run, audit=AuditRecords(run.path, summary, rows, [], worst, [], []))


def bare(run: RunRecords) -> RunRecords:
    """Return a run that is trained and evaluated but not yet attacked."""
    return replace(run, robustness=[], gallery=[])


def _epoch(role: str, epoch: int) -> dict[str, Any]:
    final, pace = _MODELS[role]["correct"] / IMAGES, 1 - math.exp(-epoch / 6)
    kd = 9.0 if role in ("distilled", "stem-only") else 1.0
    jump = 0.02 * math.sin(3.7 * epoch) * math.exp(-epoch / 12)
    return {
        "epoch": epoch,
        "seconds": 41.5,
        "lr": 0.1 if epoch <= 15 else 0.01,
        "loss": kd * (2.4 - 2.1 * pace * final),
        "parts": {"accuracy": min(1.0, 0.1 + (final - 0.04) * pace), "cross_entropy": 2.4 - 2.1 * pace},
        "measured": {"accuracy": final * (0.12 + 0.88 * pace) + jump},
        "schema": 1,
    }


def _evaluation(role: str) -> dict[str, Any]:
    model, solved = _MODELS[role], _SOLVED.get(role)
    low, high = wilson_interval(model["correct"], IMAGES)
    return {
        "clean": {
            "images": IMAGES,
            "accuracy": model["correct"] / IMAGES,
            "accuracy_low": low,
            "accuracy_high": high,
            "loss": 0.41,
            "calibration_error": 0.031,
            "agreement": None if role == "teacher" else model["correct"] / IMAGES + 0.021,
            "failed": 0,
            "schema": 1,
        },
        "cost": {"parameters": model["parameters"], "macs": model["macs"], "macs_per_evaluation": 47_185_920},
        "evaluations": None if solved is None else _calls(solved),
        "seconds": 12.4,
    }


def _calls(histogram: dict[int, int]) -> dict[str, Any]:
    mean = sum(calls * images for calls, images in histogram.items()) / sum(histogram.values())
    as_json = {str(calls): images for calls, images in histogram.items()}
    return {"mean": mean, "min": min(histogram), "max": max(histogram), "histogram": as_json}


def _row(role: str, attack: str, eps: int) -> dict[str, Any]:
    model, floor = _MODELS[role], 0.16 if (role, attack) == ("distilled", "pgd") else 0.0
    scale = model["resists"] * (1.25 if attack == "pgd" else 1.0)
    share = floor + (model["correct"] / IMAGES - floor) / (1 + (eps / scale) ** 3)
    correct = round(share * IMAGES) if eps else model["correct"]
    low, high = wilson_interval(correct, IMAGES)
    solved = role in ("distilled", "undistilled")
    return {
        "protocol": "chu2022",
        "attack": attack,
        "eps_255": eps,
        "step_255": 1,
        "steps": min(eps + 4, 5 * eps // 4),
        "momentum": 1.0 if attack == "mi-fgsm" else None,
        "random_start": attack == "pgd",
        "seed": 0,
        "images": IMAGES,
        "clean_accuracy": model["correct"] / IMAGES,
        "accuracy": correct / IMAGES,
        "robust_accuracy": max(0, correct - 2 * bool(eps)) / IMAGES,
        "correct": correct,
        "robust": max(0, correct - 2 * bool(eps)),
        "wilson_low": low,
        "wilson_high": high,
        "bad_gradient_images": eps // 4 if (role, attack) == ("distilled", "pgd") else 0,
        "failed_images": 0,
        "gradient_calls": min(eps + 4, 5 * eps // 4),
        "mean_evaluations": 21.8 + 0.6 * eps if solved else None,
        "predicted": [IMAGES // 10] * 10,
        "survivors": [correct // 10] * 10,
        "seconds": 3.1 * eps,
        "restarts": 1,
        "loss": "cross-entropy, summed",
        "scored": "last iterate",
        "schema": 1,
        "recipe": "5c0ffee1",
    }


def _example(label: int, eps_255: int) -> dict[str, Any]:
    """Return a made picture, each class another pattern, and the same under a pattern of +-eps."""
    y, x = np.mgrid[0:32, 0:32] / 31
    waves = [np.sin(6 * (label % 4 + 1) * x + channel) * np.cos(5 * (label % 3 + 1) * y - channel) for channel in range(3)]
    clean = np.stack([128 + 70 * wave for wave in waves], -1)
    sign = np.sign(np.sin(37 * x * (label + 1) + 91 * y)[..., None] + 0.2 * np.sin(50 * clean / 128))
    return {
        "eps_255": eps_255,
        "label": label,
        "predicted_clean": label if label != 3 else 5,
        "predicted": label if label == 6 else -1 if label == 7 else (label * 3 + 2) % 10,
        "clean": _png(clean),
        "adversarial": _png(clean + eps_255 * sign),
    }


def _png(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
