"""What several trainings of one cell say together: mean, standard deviation, interval, and paired differences.

With two seeds or more, intervals are Student's, over trainings. With one they are those of the finite test images, and say
nothing of what another seed would give. Either kind is named where it is printed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

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
    """Return the mean over seeds; none if nothing is measured."""
    shares = [right / count for right, count in hits.values()]
    if not shares:
        return None
    if len(shares) == 1:
        return Spread(shares[0], *wilson_interval(*next(iter(hits.values()))), None, 1)
    return of_values(shares)


def of_values(values: list[float]) -> Spread:
    """Return the mean of at least two values over seeds with Student's interval."""
    return Spread(sum(values) / len(values), *student_interval(values), deviation(values), len(values))


def difference(one: Mapping[int, tuple[int, int]], other: Mapping[int, tuple[int, int]]) -> Spread | None:
    """Return one minus other, paired by seed; none if no seed has both."""
    seeds = [seed for seed in one if seed in other]
    if not seeds:
        return None
    gaps = [one[seed][0] / one[seed][1] - other[seed][0] / other[seed][1] for seed in seeds]
    if len(seeds) == 1:
        return Spread(gaps[0], *difference_interval(one[seeds[0]], other[seeds[0]]), None, 1)
    return of_values(gaps)


def combined(weights: Mapping[str, float], records: GridRecords, measured: Measured = clean) -> Spread | None:
    """Return a weighted sum of cells' shares, seed by seed; none unless all cells have a seed in common.

    With one seed the interval adds up the squared reaches of Newcombe's for each pair of weights, as of independent images.
    """
    of = {name: hits_of(records, name, measured) for name in weights}
    seeds = [seed for seed in next(iter(of.values())) if all(seed in hits for hits in of.values())]
    values = [sum(weight * of[name][seed][0] / of[name][seed][1] for name, weight in weights.items()) for seed in seeds]
    if not values:
        return None
    if len(values) > 1:
        return of_values(values)
    reach = sum((weight * _reach(of[name][seeds[0]])) ** 2 for name, weight in weights.items()) ** 0.5
    return Spread(values[0], values[0] - reach, values[0] + reach, None, 1)


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
