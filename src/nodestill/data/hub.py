"""CIFAR-10 and SVHN, from a directory or from the Hugging Face hub.

Finds the file of the split that is asked for (nothing else is downloaded), checks that it is what its name says, and
labels it by its sha256.
"""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Int64
from torch import Tensor

from nodestill.data.files import Source, entries, is_file, read_bytes
from nodestill.data.parquet import count_rows, decode_parquet
from nodestill.errors import DataError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HubSet:
    """A data set on the hub: where its files are and what they must hold."""

    name: str  # also its folder below --data
    title: str
    repo: str
    folder: str
    class_names: tuple[str, ...]

    def hub_file(self, stem: str) -> str:
        """Return the path within the repository of the file of the split `stem` ("train" or "test")."""
        return f"{self.folder}/{stem}-00000-of-00001.parquet"


CIFAR10 = HubSet(
    name="cifar10",
    title="CIFAR-10",
    repo="uoft-cs/cifar10",
    folder="plain_text",
    class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
)
SVHN = HubSet(
    name="svhn",
    title="SVHN",
    repo="ufldl-stanford/svhn",
    folder="cropped_digits",
    class_names=tuple("0123456789"),
)

# Files whose contents were examined, by sha256: which data set and split they are, and what to call this copy of it.
KNOWN_FILES = {
    "e7ece623012843b1b42e9566f22c43bf5ec5b47ce19c87463adf4ad51e1e83b6": ("cifar10", "train", "CIFAR-10, JPEG mirror"),
    "5c33b3db30519196d033e746b85f6f9e44de59b2eefa61f177101d4726a5fd47": ("cifar10", "test", "CIFAR-10, JPEG mirror"),
    "c43e84c3a6e1d910833dd62d70c19bd6dc92880e792f7fea7e7d6cf8b7ecd5c3": ("cifar10", "train", "CIFAR-10, lossless part"),
    "7f78b9ee5be8a5aa542a56e8edab02d82fd16401eb508550905185531914cfcd": ("cifar10", "test", "CIFAR-10, lossless part"),
    "87e0dae4e77c1ec28ea5de962b5fa3a530473964db8f0216632e1369cd085706": ("svhn", "train", "SVHN, small part"),
    "04a2cfe49297beb4edfbb51564ebaae9a2eae748ccb9c9cbc640507e8727074d": ("svhn", "test", "SVHN, small part"),
}


def read_hub_set(hub_set: HubSet, stem: str, root: Path | None) -> Source:
    """Read one split.

    Args:
        hub_set: Which data set.
        stem: "train" or "test".
        root: Directory that holds `<name>/<stem>.parquet` or `<stem>.parquet`; None, or a directory with neither split,
            means the hub's cache, filled by one download.

    Returns:
        Images, labels in 0 … 9, provenance by checksum. Classes are numbers if the file does not name them.

    Raises:
        DataError: If the file is nowhere, damaged, or of another data set or split.
    """
    path, data, sha256, provenance = _found(hub_set, stem, root)
    images, labels, class_names, paths = decode_parquet(data, path)
    numbers = tuple(str(number) for number in range(len(hub_set.class_names)))
    if class_names and class_names != hub_set.class_names:
        raise DataError(
            f"{path} names {len(class_names)} classes ({', '.join(class_names[:3])}, …), expected those of "
            f"{hub_set.title} ({', '.join(hub_set.class_names[:3])}, …). Choose the data set that this file holds."
        )
    _require_labels(labels, len(numbers), path)
    return Source(hub_set.name, provenance, sha256, images, labels, class_names or numbers, paths)


def identify_hub_set(hub_set: HubSet, stem: str, root: Path | None) -> tuple[str, str]:
    """Return provenance and sha256 of one split without decoding it; raises what `read_hub_set` raises of files."""
    _, _, sha256, provenance = _found(hub_set, stem, root)
    return provenance, sha256


def count_hub_set(hub_set: HubSet, stem: str, root: Path | None) -> int:
    """Return the number of images of one split without decoding it; raises what `read_hub_set` raises of files."""
    path, data, _, _ = _found(hub_set, stem, root)
    return count_rows(data, path)


def _found(hub_set: HubSet, stem: str, root: Path | None) -> tuple[Path, bytes, str, str]:
    """Return the split's file: path, contents, sha256 and provenance."""
    path = _local_file(hub_set, stem, root) or _downloaded(hub_set, stem, root)
    data = read_bytes(path)
    sha256 = hashlib.sha256(data).hexdigest()
    return path, data, sha256, _provenance(hub_set, stem, sha256, path)


def _local_file(hub_set: HubSet, stem: str, root: Path | None) -> Path | None:
    """Return the split's file below `root`; None if `root` holds neither split."""
    if root is None:
        return None
    entries(root)  # a mistyped directory must not end in a silent download
    for directory in (root / hub_set.name, root):
        if is_file(directory / f"{stem}.parquet"):
            return directory / f"{stem}.parquet"
        other = "test" if stem == "train" else "train"
        if is_file(directory / f"{other}.parquet"):
            raise DataError(
                f"{directory} holds {other}.parquet but no {stem}.parquet, expected both: splits of different copies "
                "do not belong together. Put the missing file there."
            )
    return None


def _downloaded(hub_set: HubSet, stem: str, root: Path | None) -> Path:
    """Return the split's file in the hub's cache, downloading it if it is not there yet."""
    import huggingface_hub
    from huggingface_hub import constants

    file = hub_set.hub_file(stem)
    _log.info("looking for %s of %s in the hub's cache, else on the hub", file, hub_set.repo)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it warns of every retry; what went wrong is said below
    try:
        return Path(huggingface_hub.hf_hub_download(hub_set.repo, file, repo_type="dataset"))
    except Exception as error:  # its types differ between versions, and the network's own shine through
        below = "" if root is None else f"{hub_set.name}/{stem}.parquet and {stem}.parquet in {root}, then for "
        raise DataError(
            f"{hub_set.title} ({stem}) was not found: looked for {below}{hub_set.repo} in the cache "
            f"{constants.HF_HUB_CACHE}, and could not download it ({type(error).__name__}). Pass --data DIR with "
            f"DIR/{hub_set.name}/{stem}.parquet, or go online once without HF_HUB_OFFLINE."
        ) from error


def _provenance(hub_set: HubSet, stem: str, sha256: str, path: Path) -> str:
    name, known_stem, label = KNOWN_FILES.get(sha256, (hub_set.name, stem, None))
    if (name, known_stem) != (hub_set.name, stem):
        raise DataError(
            f"{path} is the {known_stem} split of {label}, expected the {stem} split of {hub_set.title}. "
            "Choose the data set that this file holds, or put the right file there."
        )
    return label or f"{hub_set.title}, unverified (sha256 {sha256[:8]}…)"


def _require_labels(labels: Int64[Tensor, " count"], num_classes: int, path: Path) -> None:
    wrong = ((labels < 0) | (labels >= num_classes)).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"Row {row} of {path} has label {int(labels[row])}, expected 0 … {num_classes - 1}. "
            "Choose the data set that this file holds, or repair the row."
        )
