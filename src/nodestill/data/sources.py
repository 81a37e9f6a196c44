"""Where image sets come from: the bundled digits, CIFAR-10, SVHN, or a folder of images.

Reads a split once, cuts it into parts, and puts it on the device. Nothing is cached on disk beyond the hub's download.
"""

import logging
import re
import time
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from nodestill.data.batches import ImageSet
from nodestill.data.files import Source
from nodestill.data.folder import read_folder, required
from nodestill.data.hub import CIFAR10, SVHN, read_hub_set
from nodestill.data.keyed import Stream, keyed_permutation
from nodestill.errors import DataError

_log = logging.getLogger(__name__)
DIGITS_TRAIN, DIGITS_TEST = 1437, 360
_HOLD_OUT_SEED = 0  # part of the definition of the validation split: never change it


class Dataset(Enum):
    """The data sets that can be loaded."""

    DIGITS = "digits"  # 1,797 handwritten digits of 8×8, bundled with scikit-learn
    CIFAR10 = "cifar10"
    SVHN = "svhn"  # cropped digits, without the `extra` split
    FOLDER = "folder"  # root/{train,test}/<class>/<image>


class Split(Enum):
    """The parts of a data set."""

    TRAIN = "train"  # the whole training set, as the paper trains on
    TRAIN_PART = "train_part"  # TRAIN without VALIDATION: train on this while choosing settings
    VALIDATION = "validation"  # a fixed tenth of TRAIN: choose settings on this, never on TEST
    TEST = "test"

    @property
    def stem(self) -> str:
        """Name of the file or folder that this split is read from."""
        return "test" if self is Split.TEST else "train"


def load_image_set(dataset: Dataset, split: Split, root: Path | None = None, device: torch.device | str = "cpu") -> ImageSet:
    """Load one split of a data set.

    CIFAR-10 and SVHN are read from `root/<name>/{train,test}.parquet` or `root/{train,test}.parquet`, else downloaded
    once from the hub. Digits ignore `root`; their test set is the last 360 in file order, because neighbours in the
    file tend to be by the same writer. Digits and grey images have three equal channels.

    The validation split is a fixed random tenth of the training images by position, for SVHN with known origins a tenth
    of the photographs, because crops of one photograph overlap.

    Args:
        dataset: Which data set.
        split: Which part of it.
        root: Where its files are; needed for `Dataset.FOLDER`.
        device: Where the tensors go.

    Returns:
        The images as uint8 with labels, class names and provenance.

    Raises:
        InputError: If an image folder is asked for without `root`.
        DataError: If the data are missing, unreadable, damaged or not what they should be.
    """
    started = time.perf_counter()
    source = read_source(dataset, split.stem, root)
    data = ImageSet(source.name, source.provenance, source.images, source.labels, source.class_names)
    if split in (Split.TRAIN_PART, Split.VALIDATION):
        groups = _groups(source, by_photograph=dataset is Dataset.SVHN)
        data = data.subset(_part(groups, split))
    seconds = time.perf_counter() - started
    _log.info("%s, %s: %d images in %.1f s", data.provenance, split.value, len(data), seconds)
    return data.to(device)


def read_source(dataset: Dataset, stem: str, root: Path | None) -> Source:
    """Read all that the file or folder `stem` ("train" or "test") holds; raises what `load_image_set` raises."""
    match dataset:
        case Dataset.DIGITS:
            return _read_digits(stem)
        case Dataset.CIFAR10:
            return read_hub_set(CIFAR10, stem, root)
        case Dataset.SVHN:
            return read_hub_set(SVHN, stem, root)
        case Dataset.FOLDER:
            return read_folder(required(root), stem)


def _read_digits(stem: str) -> Source:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    part = slice(DIGITS_TRAIN, None) if stem == "test" else slice(None, DIGITS_TRAIN)
    grey = torch.from_numpy(bunch.images[part]) * (255 / 16)  # stored as 0 … 16
    images = grey.round().to(torch.uint8)[:, None].repeat(1, 3, 1, 1)
    labels = torch.from_numpy(bunch.target[part]).to(torch.int64)
    return Source("digits", "digits of scikit-learn", None, images, labels, tuple("0123456789"), ())


def _groups(source: Source, *, by_photograph: bool) -> Int64[Tensor, " count"]:
    """Number the groups of images that must stay together: photographs where they are known, else single images."""
    photographs = _photographs(source.paths) if by_photograph else None
    if photographs is None:
        return torch.arange(len(source.labels))
    numbers = {photograph: number for number, photograph in enumerate(dict.fromkeys(photographs))}
    return torch.tensor([numbers[photograph] for photograph in photographs])


def _photographs(paths: Sequence[str | None]) -> list[str] | None:
    """Return the photograph of each 'split/photograph_digit.png'; None unless every path says."""
    found = [re.search(r"(\d+)_\d+(\.\w+)?$", path or "") for path in paths]
    return [match[1] for match in found if match] if found and all(found) else None


def _part(groups: Int64[Tensor, " count"], split: Split) -> Int64[Tensor, " part"]:
    """Return the positions, in order, of the images that belong to TRAIN_PART or VALIDATION."""
    count = int(groups.max()) + 1
    if count < 2:
        raise DataError(f"A validation split needs at least 2 images or photographs, got {count}. Use the whole train split.")
    order = keyed_permutation(count, _HOLD_OUT_SEED, Stream.HOLD_OUT, 0, groups.device)
    held_out = torch.zeros(count, dtype=torch.bool)
    held_out[order[: max(1, count // 10)]] = True
    return (held_out[groups] == (split is Split.VALIDATION)).nonzero().squeeze(1)
