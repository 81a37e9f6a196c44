"""Image folders: root/{train,test}/<class>/<image>, one folder per class.

All images must have one size; nothing is resized here, because how it is done changes results.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from nodestill.data.files import Source, decode_images, entries, read_bytes
from nodestill.errors import DataError, InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm")


def required(root: Path | None) -> Path:
    """Return the directory of an image folder; raises `InputError` if none was given."""
    if root is None:
        raise InputError("An image folder needs its directory, got none. Pass --data DIR with DIR/train and DIR/test.")
    return root


def read_folder(root: Path, stem: str) -> Source:
    """Read one split of an image folder.

    Classes are the sorted folder names; images come in the sorted order of their names. Hidden files and files that do
    not end in one of `SUFFIXES` are passed over.

    Args:
        root: Directory that holds `train` and `test`.
        stem: "train" or "test".

    Returns:
        Images and labels; provenance is the checksum over all names and contents read.

    Raises:
        DataError: If a directory is missing, train and test have different classes, a class has no images, an image is
            damaged, or sizes differ.
    """
    class_names = _class_names(root)
    files = [_image_files(root / stem / name) for name in class_names]
    flat = [path for of_class in files for path in of_class]
    labels = torch.tensor([label for label, of_class in enumerate(files) for _ in of_class])
    digest = hashlib.sha256()
    images = decode_images(_contents(flat, root, digest.update), lambda number: str(flat[number]), str(root / stem))
    sha256 = digest.hexdigest()
    paths = [str(path.relative_to(root)) for path in flat]
    return Source(root.resolve().name, _provenance(root, sha256), sha256, images, labels, class_names, paths)


def count_folder(root: Path, stem: str) -> int:
    """Return the number of images of one split; raises what `read_folder` raises of directories."""
    return sum(len(_image_files(root / stem / name)) for name in _class_names(root))


def identify_folder(root: Path, stem: str) -> tuple[str, str]:
    """Return provenance and sha256 of one split without decoding it; raises what `read_folder` raises of files."""
    digest = hashlib.sha256()
    files = [path for name in _class_names(root) for path in _image_files(root / stem / name)]
    for _ in _contents(files, root, digest.update):
        pass
    return _provenance(root, digest.hexdigest()), digest.hexdigest()


def _provenance(root: Path, sha256: str) -> str:
    return f"image folder {root.resolve().name} (sha256 {sha256[:8]}…)"


def _class_names(root: Path) -> tuple[str, ...]:
    train, test = ([path.name for path in entries(root / stem) if path.is_dir()] for stem in ("train", "test"))
    if train != test or not train:
        differing = ", ".join(sorted({*train} ^ {*test})[:5]) or "there are none"
        raise DataError(
            f"{root}/train and {root}/test must have the same class folders, got {len(train)} and {len(test)}; "
            f"differing: {differing}. Give each class a folder in both."
        )
    return tuple(train)


def _image_files(directory: Path) -> list[Path]:
    files = [path for path in entries(directory) if path.suffix.lower() in SUFFIXES]
    if not files:
        raise DataError(f"{directory} holds no images ({', '.join(SUFFIXES)}), expected some. Add images or remove the class.")
    return files


def _contents(files: Sequence[Path], root: Path, record: Callable[[bytes], None]) -> Iterator[bytes]:
    """Yield each file's contents, and `record` its name and checksum."""
    for path in files:
        data = read_bytes(path)
        record(f"{path.relative_to(root).as_posix()}\n".encode() + hashlib.sha256(data).digest())
        yield data
