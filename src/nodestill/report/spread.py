"""What several trainings of one cell say together: mean, standard deviation, interval, and differences between cells.

An interval has two parts, which add up as squares: that of the finite test images, and that of the seeds. The latter is
Student's, by the deviation between seeds pooled over all cells that have several, so that a cell that was trained once has one
too. Only where nothing was trained twice is it left out. Tables say so.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import hypot
from statistics import NormalDist

from nodestill.experiments.records import RunRecords
from nodestill.intervals import deviation, student_quantile, weighted_interval
from nodestill.report.formats import NOTHING
from nodestill.reproduction.grid_records import GridCell, GridRecords

Hits = tuple[float | int, int]  # hits and trials; a mean of several numbers of hits need not be whole
Measured = Callable[[RunRecords], Hits | None]  # none if it was not measured
OfImages = Callable[[Sequence[int], float], tuple[float, float] | None]  # from seeds and a normal quantile


@dataclass(frozen=True)
class Spread:
    """A mean over seeds with its interval.

    Attributes:
        mean: The mean; a share, or a difference of shares.
        low: Lower end of the 95 % interval.
        high: Upper end.
        deviation: Standard deviation over seeds; none of one.
        of: The seeds of the trainings, or of the pairs of them.
    """

    mean: float
    low: float
    high: float
    deviation: float | None
    of: tuple[int, ...]

    @property
    def seeds(self) -> int:
        """How many trainings, or pairs of them."""
        return len(self.of)

    @property
    def sign(self) -> int:
        """1 or -1 if the interval is on one side of zero, else 0."""
        return 1 if self.low > 0 else -1 if self.high < 0 else 0

    def percent(self) -> str:
        """Return the mean in percent, with the deviation over seeds if there is one."""
        spread = "" if self.deviation is None else f" ± {100 * self.deviation:.1f}"
        return f"{100 * self.mean:.1f}{spread}"

    def points(self) -> str:
        """Return a difference in percentage points with its interval."""
        return f"{100 * self.mean:+z.1f} ({100 * self.low:+z.1f} to {100 * self.high:+z.1f})"

    def size(self) -> str:
        """Return how large a difference is that is on one side of zero, in percentage points, whichever side it is."""
        low, high = sorted((abs(self.low), abs(self.high)))
        return f"{100 * abs(self.mean):.1f} ({100 * low:.1f} to {100 * high:.1f})"

    def interval(self) -> str:
        """Return the ends of the interval in percent."""
        return f"{100 * self.low:.1f}–{100 * self.high:.1f}"


def clean(run: RunRecords) -> tuple[int, int]:
    """Return how many clean images are right, of how many."""
    found = run.evaluation["clean"]
    return round(found["accuracy"] * found["images"]), found["images"]


def hits_of(records: GridRecords, name: str, measured: Measured = clean) -> dict[int, Hits]:
    """Return hits and trials of a cell by seed, of the seeds that are measured."""
    found = {seed: measured(run) for seed, run in records.runs(name).items()}
    return {seed: hits for seed, hits in found.items() if hits is not None}


def spread(records: GridRecords, name: str, measured: Measured = clean, seeds: Sequence[int] | None = None) -> Spread | None:
    """Return the mean of a cell over its seeds, or over those that are named; none if nothing is measured."""
    found = combined({name: 1.0}, records, measured, seeds=seeds)
    return None if found is None else replace(found, low=max(0.0, found.low), high=min(1.0, found.high))


def difference(
    records: GridRecords, one: str, other: str, measured: Measured = clean, confidence: float = 0.95
) -> Spread | None:
    """Return one cell minus another, paired by seed; none if no seed has both."""
    return combined({one: 1.0, other: -1.0}, records, measured, confidence)


def combined(
    weights: Mapping[str, float],
    records: GridRecords,
    measured: Measured = clean,
    confidence: float = 0.95,
    of_images: OfImages | None = None,
    seeds: Sequence[int] | None = None,
) -> Spread | None:
    """Return a weighted sum of cells' shares, seed by seed; none unless all cells have a seed in common.

    Args:
        weights: Of each cell, by name.
        records: The grid.
        measured: What is read of a run.
        confidence: Of the interval, in (0, 1).
        of_images: The part of the images of the interval; where it is not known, shares are as if of different images.
        seeds: Those that count; all, if they are not named.
    """
    of = {name: hits_of(records, name, measured) for name in weights}
    common = [seed for seed in next(iter(of.values())) if all(seed in hits for hits in of.values())]
    paired = tuple(seed for seed in common if seeds is None or seed in seeds)
    values = [sum(weight * of[name][seed][0] / of[name][seed][1] for name, weight in weights.items()) for seed in paired]
    if not values:
        return None
    mean, z = sum(values) / len(values), NormalDist().inv_cdf((1 + confidence) / 2)
    known = None if of_images is None else of_images(paired, z)
    low, high = known or weighted_interval([(weight, _as_one(of[name], paired)) for name, weight in weights.items()], z)
    reach = hypot(*weights.values()) * reach_of_seeds(records, measured, confidence) / len(values) ** 0.5
    ends = mean - hypot(mean - low, reach), mean + hypot(high - mean, reach)
    return Spread(mean, *ends, deviation(values) if len(values) > 1 else None, paired)


def _as_one(hits: Mapping[int, Hits], seeds: Sequence[int]) -> Hits:
    """Return the mean over seeds as hits of one set of images: all seeds are tested on the same."""
    count = min(hits[seed][1] for seed in seeds)
    return count * sum(hits[seed][0] / hits[seed][1] for seed in seeds) / len(seeds), count


def reach_of_seeds(records: GridRecords, measured: Measured = clean, confidence: float = 0.95) -> float:
    """Return how far a share reaches for its seed alone: Student's quantile times the deviation pooled over repeated cells.

    0 where nothing was trained twice.
    """
    shares: dict[tuple[str | None, ...], list[float]] = {}  # by run folders: a model of several names counts once
    for name in dict.fromkeys(cell.name for cell in records.cells):
        values = [right / count for right, count in hits_of(records, name, measured).values()]
        if len(values) > 1:
            shares[tuple(cell.folder for cell in records.named(name).values())] = values
    freedom = sum(len(values) - 1 for values in shares.values())
    squares = sum((len(values) - 1) * deviation(values) ** 2 for values in shares.values())
    return student_quantile(freedom, confidence) * (squares / freedom) ** 0.5 if freedom else 0.0


def awaits_seeds(records: GridRecords) -> bool:
    """Whether models are to be trained by several seeds and none is yet: how far seeds lie apart will be known, and is not."""
    listed = Counter(cell.name for cell in records.cells)
    return max(listed.values(), default=0) > 1 and all(len(records.named(name)) < 2 for name in listed)


def about_intervals(records: GridRecords) -> str:
    """Return sentences on what intervals are: whether seeds are in them, and which images are compared one by one."""
    pairs = (
        "Two attacked accuracies are compared image by image, as rows say which images stayed right; two clean ones, of which "
        "no row says that, as if of different images, which is wider than need be."
    )
    trainings = max((len(records.named(cell.name)) for cell in records.cells), default=0)
    if trainings > 1:
        return (
            "Accuracies are percent; mean ± standard deviation where a cell has several seeds. Intervals, 95 %, are of the "
            "finite test images and of the seeds together; the latter by the deviation pooled over all cells that have "
            f"several. {pairs}"
        )
    return f"Accuracies are percent. One training each: intervals are of the finite test images, not of other seeds. {pairs}"


def percent_of(found: Spread | None) -> str:
    """Return a mean in percent, or a dash."""
    return NOTHING if found is None else found.percent()


def interval_of(found: Spread | None) -> str:
    """Return an interval in percent, or a dash."""
    return NOTHING if found is None else found.interval()


def points_of(found: Spread | None) -> str:
    """Return a difference in points, or a dash."""
    return NOTHING if found is None else found.points()


def deviation_of(found: Spread | None) -> str:
    """Return the standard deviation over seeds in points, or a dash."""
    return NOTHING if found is None or found.deviation is None else f"{100 * found.deviation:.1f}"


def mean_of(cells: Mapping[int, GridCell], read: Callable[[RunRecords], float | int | None]) -> float | None:
    """Return the mean over seeds of a number of a run; none if no run has it."""
    values = [read(cell.run) for cell in cells.values() if cell.run is not None]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
