"""What results/ claims of the models that are kept there is what these models do."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from nodestill.data import Dataset, Split, load_image_set
from nodestill.experiments.loaded import load_run
from nodestill.experiments.store import RunFolder
from nodestill.training import evaluate

RESULTS = Path(__file__).parents[1] / "results"
DATA = os.environ.get("NODESTILL_DATA")  # a folder with cifar10/test.parquet, which no test can download
KEPT = sorted(path.parent for path in RESULTS.rglob("weights.safetensors"))
DIGITS = [folder for folder in KEPT if "-digits-" in folder.name]
OTHERS = [folder for folder in KEPT if "-digits-" not in folder.name]


def score_again(kept, tmp_path):
    """Accuracy of a kept model, now, and as its row has it, and the number of images."""
    folder = RunFolder(Path(shutil.copytree(kept, tmp_path / kept.name)))
    folder.mark("DONE")
    model, _, recipe = load_run(folder, torch.device("cpu"))
    claimed = json.loads((kept / "evaluation.json").read_text())["clean"]
    split = Split.VALIDATION if recipe["model"]["training"].get("hold_out") else Split.TEST
    data = load_image_set(Dataset(recipe["dataset"]), split, Path(DATA) if DATA else None).first(claimed["images"])
    return evaluate(model, data, 500).accuracy, claimed["accuracy"], claimed["images"]


def test_there_are_models_to_score():
    assert DIGITS
    assert OTHERS


@pytest.mark.parametrize("kept", DIGITS, ids=lambda path: path.name)
def test_a_model_of_digits_is_as_good_as_its_row_says(kept, tmp_path):
    now, claimed, images = score_again(kept, tmp_path)
    assert abs(now - claimed) <= 1.5 / images  # another machine rounds otherwise: one image


@pytest.mark.slow  # seconds each, and there will be a hundred
@pytest.mark.skipif(DATA is None, reason="NODESTILL_DATA names no folder of images")
@pytest.mark.parametrize("kept", OTHERS, ids=lambda path: path.name)
def test_a_model_is_as_good_as_its_row_says(kept, tmp_path):
    now, claimed, images = score_again(kept, tmp_path)
    assert abs(now - claimed) <= 3.5 / images
