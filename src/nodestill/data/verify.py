"""What is in a data set, to be compared by eye or by machine with what should be: for `nodestill data verify`.

Decodes every image, so a damaged one is found here and not in the middle of a run.
"""

from dataclasses import dataclass
from pathlib import Path

from nodestill.data.batches import Channels, ImageSet, channel_statistics
from nodestill.data.sources import Dataset, Split, read_source


@dataclass(frozen=True)
class SplitSummary:
    """What one split holds."""

    split: Split
    count: int
    class_counts: dict[str, int]  # by class name, in the order of the labels
    shape: tuple[int, int, int]  # channels, height, width
    sha256: str | None  # of the file, or of names and contents of a folder; None for bundled data
    provenance: str
    pixel_mean: Channels  # in units of [0, 1]


def verify(dataset: Dataset, root: Path | None) -> list[SplitSummary]:
    """Read and decode the train and test split of a data set, and say what they hold.

    Args:
        dataset: Which data set.
        root: Where its files are, as in `load_image_set`.

    Returns:
        One summary each for `Split.TRAIN` and `Split.TEST`.

    Raises:
        InputError: If an image folder is asked for without `root`.
        DataError: If the data are missing, unreadable, damaged or not what they should be.
    """
    return [_summary(dataset, split, root) for split in (Split.TRAIN, Split.TEST)]


def _summary(dataset: Dataset, split: Split, root: Path | None) -> SplitSummary:
    source = read_source(dataset, split.stem, root)
    data = ImageSet(source.name, source.provenance, source.images, source.labels, source.class_names)
    counts = source.labels.bincount(minlength=data.num_classes).tolist()
    _, height, width = source.images.shape[1:]
    return SplitSummary(
        split=split,
        count=len(data),
        class_counts=dict(zip(source.class_names, counts)),
        shape=(3, height, width),
        sha256=source.sha256,
        provenance=source.provenance,
        pixel_mean=channel_statistics(data)[0],
    )
