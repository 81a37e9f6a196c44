"""What several trainings of one cell say together: mean, standard deviation, interval, and paired differences.

With two seeds or more, intervals are Student's, over trainings, and those of a mean at least as wide as that of the finite test
images. With one they are those of the images alone, and say nothing of what another seed would give. Tables say which.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist

from nodestill.experiments.records import GridCell, GridRecords, RunRecords
from nodestill.intervals import deviation, difference_interval, student_interval, wilson_interval
from nodestill.report.formats import NOTHING

Measured = Callable[[RunRecords], tuple[int, int] | None]  # hits and trials, if it was measured


@dataclass(frozen=True)
class Spread:
    """A mean over seeds with its interval.

    Attributes:
        mean: The mean; a share, or a difference of shares.
        low: Lower end of the 95 % interval.
        high: Upper end.
        deviation: Standard deviation over seeds; none of one.
        seeds: How many trainings, or pairs of them.
    """

    mean: float
    low: float
    high: float
    deviation: float | None
    seeds: int

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
        return f"{100 * self.mean:+.1f} ({100 * self.low:+.1f} to {100 * self.high:+.1f})"

    def interval(self) -> str:
        """Return the ends of the interval in percent."""
        return f"{100 * self.low:.1f}–{100 * self.high:.1f}"


def clean(run: RunRecords) -> tuple[int, int]:
    """Return how many clean images are right, of how many."""
    found = run.evaluation["clean"]
    return round(found["accuracy"] * found["images"]), found["images"]


def attacked(attack: str, eps_255: int) -> Measured:
    """Return what reads how many images are right under an attack at a radius."""

    def measured(run: RunRecords) -> tuple[int, int] | None:
        rows = [row for row in run.robustness if row["attack"] == attack and row["eps_255"] == eps_255]
        return (rows[0]["correct"], rows[0]["images"]) if rows else None

    return measured


def hits_of(records: GridRecords, name: str, measured: Measured = clean) -> dict[int, tuple[int, int]]:
    """Return hits and trials of a cell by seed, of the seeds that are measured."""
    found = {seed: measured(cell.run) for seed, cell in records.named(name).items() if cell.run is not None}
    return {seed: hits for seed, hits in found.items() if hits is not None}


def spread(hits: Mapping[int, tuple[int, int]]) -> Spread | None:
    """Return the mean over seeds; none if nothing is measured.

    All seeds are measured on the same images, so the interval is never narrower than that of the finite number of images.
    """
    shares = [right / count for right, count in hits.values()]
    if not shares:
        return None
    mean, count = sum(shares) / len(shares), min(count for _, count in hits.values())
    low, high = wilson_interval(round(mean * count), count)
    if len(shares) == 1:
        return Spread(mean, low, high, None, 1)
    over = of_values(shares)
    return Spread(mean, max(0.0, min(low, over.low)), min(1.0, max(high, over.high)), over.deviation, len(shares))


def of_values(values: list[float], confidence: float = 0.95) -> Spread:
    """Return the mean of at least two values over seeds with Student's interval."""
    return Spread(sum(values) / len(values), *student_interval(values, confidence), deviation(values), len(values))


def difference(
    one: Mapping[int, tuple[int, int]], other: Mapping[int, tuple[int, int]], confidence: float = 0.95
) -> Spread | None:
    """Return one minus other, paired by seed; none if no seed has both.

    Where all pairs differ by the same, or there is but one, the interval is Newcombe's, of the finite numbers of images.
    """
    seeds = [seed for seed in one if seed in other]
    if not seeds:
        return None
    gaps = [one[seed][0] / one[seed][1] - other[seed][0] / other[seed][1] for seed in seeds]
    if len(seeds) > 1 and max(gaps) > min(gaps):
        return of_values(gaps, confidence)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    low, high = difference_interval(one[seeds[0]], other[seeds[0]], z)
    return Spread(gaps[0], low, high, None if len(seeds) == 1 else 0.0, len(seeds))


def combined(weights: Mapping[str, float], records: GridRecords, measured: Measured = clean) -> Spread | None:
    """Return a weighted sum of cells' shares, seed by seed; none unless all cells have a seed in common.

    With one seed the interval adds up the squares of half the widths of Wilson's, as if each cell had images of its own.
    """
    of = {name: hits_of(records, name, measured) for name in weights}
    seeds = [seed for seed in next(iter(of.values())) if all(seed in hits for hits in of.values())]
    values = [sum(weight * of[name][seed][0] / of[name][seed][1] for name, weight in weights.items()) for seed in seeds]
    if not values:
        return None
    if len(values) > 1 and max(values) > min(values):
        return of_values(values)
    reach = sum((weight * _reach(of[name][seeds[0]])) ** 2 for name, weight in weights.items()) ** 0.5
    return Spread(values[0], values[0] - reach, values[0] + reach, None if len(values) == 1 else 0.0, len(values))


def _reach(hits: tuple[int, int]) -> float:
    low, high = wilson_interval(*hits)
    return (high - low) / 2


def percent_of(found: Spread | None) -> str:
    """Return a mean in percent, or a dash."""
    return NOTHING if found is None else found.percent()


def interval_of(found: Spread | None) -> str:
    """Return an interval in percent, or a dash."""
    return NOTHING if found is None else found.interval()


def points_of(found: Spread | None) -> str:
    """Return a difference in points, or a dash."""
    return NOTHING if found is None else found.points()


def mean_of(cells: Mapping[int, GridCell], read: Callable[[RunRecords], float | int | None]) -> float | None:
    """Return the mean over seeds of a number of a run; none if no run has it."""
    values = [read(cell.run) for cell in cells.values() if cell.run is not None]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
