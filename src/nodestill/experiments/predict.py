"""Classifying image files with a finished model."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from nodestill.data.files import decode_images, read_bytes
from nodestill.errors import InputError
from nodestill.experiments.loaded import Loaded
from nodestill.models import NeuralODEClassifier


class FilePrediction(NamedTuple):
    """What a model says of one image file."""

    path: Path
    name: str  # of the class
    probability: float  # softmax of its logit
    evaluations: str  # calls of f; empty for a residual network


def predict_files(loaded: Loaded, paths: Sequence[Path]) -> list[FilePrediction]:
    """Classify image files.

    Args:
        loaded: The model.
        paths: Image files, all of the size that the model was trained on: nothing is resized here, because how that is done
            changes results.

    Raises:
        InputError: If there are no files or their size is another.
        DataError: If a file is missing or not an image.
        SolveError: If a solve fails.
    """
    if not paths:
        raise InputError("predict needs at least one image file, got none. Add its path.")
    images = decode_images([read_bytes(path) for path in paths], lambda i: str(paths[i]), "The list of images")
    expected, seen = tuple(loaded.recipe["image_size"]), tuple(images.shape[2:])
    if seen != expected:
        raise InputError(
            f"The images have {seen[0]}x{seen[1]} pixels, expected {expected[0]}x{expected[1]}. Resize them first."
        )
    with torch.inference_mode():
        logits, evaluations = _answers(loaded, images.float() / 255)
    probability, best = logits.softmax(1).max(1)
    return [
        FilePrediction(path, loaded.class_names[int(k)], float(p), e)
        for path, k, p, e in zip(paths, best, probability, evaluations, strict=True)
    ]


def _answers(loaded: Loaded, images: torch.Tensor) -> tuple[torch.Tensor, list[str]]:
    if not isinstance(loaded.model, NeuralODEClassifier):
        return loaded.model(images), [""] * len(images)
    prediction = loaded.model.predict(images)
    return prediction.logits, [str(int(nfe)) for nfe in prediction.evaluations]
