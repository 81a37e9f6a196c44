"""Images on the device: data sets, their splits, batches and augmented views. Pixels are in [0, 1] from here on."""

from nodestill.data.augment import Augment, augmented
from nodestill.data.batches import Batch, ImageSet, channel_statistics, eval_batches, train_batches
from nodestill.data.identity import DataIdentity, ImageCounts, count_images, identify
from nodestill.data.sources import Dataset, Split, load_image_set
from nodestill.data.verify import SplitSummary, verify

__all__ = [
    "Augment",
    "Batch",
    "DataIdentity",
    "Dataset",
    "ImageCounts",
    "ImageSet",
    "Split",
    "SplitSummary",
    "augmented",
    "channel_statistics",
    "count_images",
    "eval_batches",
    "identify",
    "load_image_set",
    "train_batches",
    "verify",
]
