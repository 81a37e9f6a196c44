"""Image sets that live on the device as one tensor, and the batches drawn from them.

A batch is an index into the set, so there are no worker processes. Images become floats in [0, 1] here; normalisation
is the model's first layer. Nothing here keeps random state: an epoch is a function of (seed, epoch).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from nodestill.data.augment import Augment, augmented
from nodestill.data.keyed import Stream, keyed_permutation
from nodestill.errors import InputError
from nodestill.shapes import Images, Labels

Channels = tuple[float, float, float]  # one number each for red, green and blue


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with their classes.

    Args:
        name: Short name of the data set, e.g. "cifar10".
        provenance: Which copy of the data this is, for people: "CIFAR-10, JPEG mirror", "…, unverified (sha256 …)".
        images: Pixels 0 … 255; made float when a batch is drawn.
        labels: Classes 0 … num_classes − 1, on the same device.
        class_names: Name of each class, in the order of the labels.

    Raises:
        InputError: If there are no images, or the labels do not fit the images or the class names.
    """

    name: str
    provenance: str
    images: UInt8[Tensor, "count 3 height width"]
    labels: Int64[Tensor, " count"]
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.images) == 0 or len(self.images) != len(self.labels):
            raise InputError(
                f"An image set needs as many labels as images, at least one of each, got {len(self.images)} images and "
                f"{len(self.labels)} labels. Check the selection."
            )
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= self.num_classes:
            raise InputError(
                f"Labels must lie in 0 … {self.num_classes - 1}, one per class name, got {low} … {high}. "
                "Check labels and class names."
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        """Number of classes, whether or not each occurs."""
        return len(self.class_names)

    def subset(self, index: Int64[Tensor, " picked"]) -> "ImageSet":
        """Return the images at the positions `index`, in that order; they are numbered anew."""
        index = index.to(self.images.device)
        return replace(self, images=self.images[index], labels=self.labels[index])

    def at(self, index: Int64[Tensor, " picked"]) -> "Batch":
        """Return the images at the positions `index` as one batch, as they are; `Batch.index` is the position in this set."""
        index = index.to(self.images.device)
        return Batch(_as_float(self.images[index]), self.labels[index], index, torch.zeros_like(index))

    def first(self, count: int) -> "ImageSet":
        """Return the first `count` images, or all if there are fewer; raises `InputError` if `count` is below 1."""
        if count < 1:
            raise InputError(f"The number of images must be at least 1, got {count}. Ask for some.")
        return replace(self, images=self.images[:count], labels=self.labels[:count])

    def to(self, device: torch.device | str) -> "ImageSet":
        """Return the same images on another device."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))


class Batch(NamedTuple):
    """Some images of a set, ready for a model."""

    images: Images  # [0, 1], channels last in memory
    labels: Labels
    # Position in the image set: the key of caches and of random starts. Hides tuple.index, which nobody misses.
    index: Int64[Tensor, " batch"]  # type: ignore[assignment]
    view: Int64[Tensor, " batch"]  # key of the augmented view: the same key makes the same view again


def train_batches(
    data: ImageSet, batch_size: int, augment: Augment, *, seed: int, epoch: int, side: int | None = None
) -> Iterator[Batch]:
    """Yield every image once, shuffled and augmented.

    The order is a function of (seed, epoch) alone, the view of image i of (seed, i, epoch) alone: an epoch can be made
    again at any time, on any device, without saved random state. `Batch.view` is the epoch. The last batch holds the
    rest.

    Args:
        data: The images.
        batch_size: Images per batch, >= 1.
        augment: What is done to each image.
        seed: Any integer.
        epoch: Number of the epoch, >= 0.
        side: Pixels, >= 1, that the shorter side of each view is shrunk to, once it is made; None leaves views as they are.

    Raises:
        InputError: If `batch_size` or `epoch` is out of range, or `side` is greater than the images.
    """
    _require_batch_size(batch_size)
    if epoch < 0:
        raise InputError(f"epoch must not be negative, got {epoch}. Count epochs from 0.")
    smallest = min(data.images.shape[2:])
    if side is not None and not 1 <= side <= smallest:
        raise InputError(
            f"side must lie between 1 and the {smallest} pixels of the images, got {side}. Images are only shrunk."
        )
    order = keyed_permutation(len(data), seed, Stream.ORDER, epoch, data.images.device)
    batches = (_train_batch(data, index, augment, seed, epoch) for index in order.split(batch_size))
    return batches if side is None else (batch._replace(images=_shrunk(batch.images, side)) for batch in batches)


def eval_batches(data: ImageSet, batch_size: int) -> Iterator[Batch]:
    """Yield every image once, in order and as it is; `Batch.view` is 0. The last batch holds the rest.

    Args:
        data: The images.
        batch_size: Images per batch, >= 1.

    Raises:
        InputError: If `batch_size` is out of range.
    """
    _require_batch_size(batch_size)
    order = torch.arange(len(data), device=data.images.device)
    return (data.at(index) for index in order.split(batch_size))


def channel_statistics(data: ImageSet) -> tuple[Channels, Channels]:
    """Return mean and standard deviation of each channel over all pixels, in units of [0, 1].

    Exact: counted per grey level in integers, so that the result does not depend on device or summation order. A channel
    that never varies has deviation 0.
    """
    # One channel at a time: all three at once as int64 would need eight bytes per pixel.
    levels = torch.stack([data.images[:, c].flatten().bincount(minlength=256) for c in range(3)]).double().cpu()
    values = torch.arange(256, dtype=torch.float64) / 255
    weights = levels / levels.sum(1, keepdim=True)
    mean = weights @ values
    deviation = (weights * (values - mean[:, None]).square()).sum(1).sqrt()
    return _three(mean), _three(deviation)


def _train_batch(data: ImageSet, index: Int64[Tensor, " batch"], augment: Augment, seed: int, epoch: int) -> Batch:
    view = torch.full_like(index, epoch)
    images = augmented(data.images[index], index, view, augment, seed=seed)
    return Batch(_as_float(images), data.labels[index], index, view)


def _shrunk(images: Images, side: int) -> Float[Tensor, "batch 3 rows columns"]:
    """Return pictures whose pixels are weighted means of those that they cover; still in [0, 1]."""
    height, width = images.shape[2:]
    size = [round(length * side / min(height, width)) for length in (height, width)]
    return F.interpolate(images, size=size, mode="bilinear", antialias=True).clamp_(0, 1)


def _as_float(images: UInt8[Tensor, "batch 3 height width"]) -> Images:
    """Return the pixels as float32 in [0, 1], channels last: the layout that convolutions are fastest in."""
    # Layout before dtype: a quarter of the bytes are moved.
    return images.contiguous(memory_format=torch.channels_last).float().div_(255)


def _three(values: Tensor) -> Channels:
    red, green, blue = values.tolist()
    return red, green, blue


def _require_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}. 128 is usual.")
