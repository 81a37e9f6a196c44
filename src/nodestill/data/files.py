"""Reading files and decoding images, with every failure told as a `DataError` in one sentence.

Knows file formats only; which files there are is the business of `hub.py` and `folder.py`.
"""

import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from nodestill.errors import DataError

# Only these decoders are let loose on the bytes: Pillow's full list includes some that start other programs.
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM")
_EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


class Source(NamedTuple):
    """All that was read of one split, before it is cut into parts."""

    name: str
    provenance: str
    sha256: str | None
    images: UInt8[Tensor, "count 3 height width"]
    labels: Int64[Tensor, " count"]
    class_names: tuple[str, ...]
    paths: Sequence[str | None]  # where each image came from; empty if not known


def read_bytes(path: Path) -> bytes:
    """Return the contents of a file.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise _cannot_read(path, error) from error


def is_file(path: Path) -> bool:
    """Return whether there is such a file.

    Raises:
        DataError: If that cannot be known for lack of permission.
    """
    try:
        return path.is_file()
    except OSError as error:
        raise _cannot_read(path, error) from error


def entries(directory: Path) -> list[Path]:
    """Return what a directory holds, sorted by name, hidden entries left out.

    Raises:
        DataError: If there is no such directory or it cannot be read.
    """
    try:
        return sorted(path for path in directory.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise _cannot_read(directory, error) from error


def decode_images(
    encoded: Iterable[bytes | None], name_of: Callable[[int], str], where: str
) -> UInt8[Tensor, "count 3 height width"]:
    """Decode PNG, JPEG, BMP, WebP or PPM images to 8-bit RGB.

    Grey images are repeated to three channels; transparency is dropped. One thread: decoding images this small holds
    Python's lock most of the time, and a pool of threads made 50,000 CIFAR-10 images slower (5 s against 3 s).

    Args:
        encoded: The contents of each image file.
        name_of: Says where image number i came from, for messages.
        where: Says where they all came from, for messages.

    Returns:
        Pixels 0 … 255 of all images.

    Raises:
        DataError: If one is missing, damaged or of more than 8 bits per channel, if sizes differ, or if there are none.
    """
    pixels = bytearray()
    sizes: Counter[tuple[int, int]] = Counter()
    for number, data in enumerate(encoded):
        size, rgb = _decoded(data, number, name_of)
        sizes[size] += 1
        pixels += rgb
    width, height = _only_size(sizes, where)
    flat = torch.frombuffer(pixels, dtype=torch.uint8)
    return flat.view(-1, height, width, 3).permute(0, 3, 1, 2).contiguous()


def _decoded(data: bytes | None, number: int, name_of: Callable[[int], str]) -> tuple[tuple[int, int], bytes]:
    """Return the size (width, height) and the RGB bytes of one image."""
    from PIL import Image

    if not data:
        raise DataError(f"{name_of(number)} holds no image, expected the bytes of one. Make or download the file anew.")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            mode, size, rgb = image.mode, image.size, image.convert("RGB").tobytes()
    except Exception as error:  # Pillow raises half a dozen unrelated types on damaged images
        raise DataError(
            f"{name_of(number)} is not a readable image ({type(error).__name__}), expected one of "
            f"{', '.join(_FORMATS)}. Make or download the file anew."
        ) from error
    if mode not in _EIGHT_BIT_MODES:
        raise DataError(
            f"{name_of(number)} has pixels of Pillow mode {mode!r}, expected 8 bits per channel. Convert it to RGB."
        )
    return size, rgb


def _only_size(sizes: Counter[tuple[int, int]], where: str) -> tuple[int, int]:
    if not sizes:
        raise DataError(f"{where} holds no images, expected at least one. Make or download it anew.")
    if len(sizes) > 1:
        seen = ", ".join(f"{width}×{height} ({count} images)" for (width, height), count in sizes.most_common(5))
        raise DataError(f"{where} holds images of {len(sizes)} sizes, among them {seen}; one is expected. Resize them.")
    return next(iter(sizes))


def _cannot_read(path: Path, error: OSError) -> DataError:
    return DataError(f"{path} cannot be read ({error.strerror or error}). Check the path and its permissions.")
