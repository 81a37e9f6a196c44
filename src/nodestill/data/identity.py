"""Which data a directory really holds, and how many, found out without decoding an image.

Results are kept under this identity: two copies of CIFAR-10 that differ in a byte never share a run.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

from nodestill.data.folder import count_folder, identify_folder, required
from nodestill.data.hub import CIFAR10, SVHN, count_hub_set, identify_hub_set
from nodestill.data.sources import DIGITS_TEST, DIGITS_TRAIN, Dataset


class DataIdentity(NamedTuple):
    """What data are called in print, and what tells them apart."""

    provenance: str  # "CIFAR-10, JPEG mirror"
    key: str  # 8 hex digits that change with any byte of the training or test images; "bundled" for the digits


class ImageCounts(NamedTuple):
    """How many images a data set has."""

    train: int
    test: int


def identify(dataset: Dataset, root: Path | None) -> DataIdentity:
    """Identify training and test images of a data set.

    Args:
        dataset: Which data set.
        root: Where its files are, as in `load_image_set`.

    Returns:
        What the data are called, and the key that tells them apart.

    Raises:
        InputError: If an image folder is asked for without `root`.
        DataError: If the data are missing or unreadable.
    """
    match dataset:
        case Dataset.DIGITS:
            return DataIdentity("digits of scikit-learn", "bundled")
        case Dataset.CIFAR10 | Dataset.SVHN:
            hub_set = CIFAR10 if dataset is Dataset.CIFAR10 else SVHN
            found = [identify_hub_set(hub_set, stem, root) for stem in ("train", "test")]
        case Dataset.FOLDER:
            found = [identify_folder(required(root), stem) for stem in ("train", "test")]
    names = dict.fromkeys(provenance for provenance, _ in found)
    return DataIdentity(" / ".join(names), hashlib.sha256("".join(sha for _, sha in found).encode()).hexdigest()[:8])


def count_images(dataset: Dataset, root: Path | None) -> ImageCounts:
    """Count the images of a data set: a copy may hold a part of it.

    Args:
        dataset: Which data set.
        root: Where its files are, as in `load_image_set`.

    Raises:
        InputError: If an image folder is asked for without `root`.
        DataError: If the data are missing or unreadable.
    """
    match dataset:
        case Dataset.DIGITS:
            return ImageCounts(DIGITS_TRAIN, DIGITS_TEST)
        case Dataset.CIFAR10 | Dataset.SVHN:
            hub_set = CIFAR10 if dataset is Dataset.CIFAR10 else SVHN
            return ImageCounts(*(count_hub_set(hub_set, stem, root) for stem in ("train", "test")))
        case Dataset.FOLDER:
            return ImageCounts(*(count_folder(required(root), stem) for stem in ("train", "test")))
