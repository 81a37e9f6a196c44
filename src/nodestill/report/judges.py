"""How the rows of a grid decide on a claim: by an interval, and what reaches over the line in question is undecided.

A judge takes a grid and returns a verdict with the numbers behind it. Of rows that are not there it says nothing but that.
Where the paper's own comparison changes more than one thing, another judge holds the others. Claims about robustness:
`robust_judges`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from nodestill.report.spread import Spread, combined, difference, percent_of, spread
from nodestill.reproduction.grid_records import GridRecords

BY_ADAM = "kd-adam-scale"  # the distilled NODE(1) that is trained as all students of longer horizons are
SMALL = 0.01  # less than a point is no trend, and no gain that is worth a name

Row = tuple[str, int]  # cell and seed


class Verdict(Enum):
    """What our rows say of a sentence of the paper."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    UNDECIDED = "undecided"
    MISSING = "not measured"


@dataclass(frozen=True)
class Judged:
    """A verdict, the numbers behind it in words, and the rows that these are of: cells and seeds."""

    verdict: Verdict
    measured: str
    rows: tuple[Row, ...] = ()


def used(names: Sequence[str], *found: Spread | None) -> tuple[Row, ...]:
    """Return cells with the seeds that are in any of these numbers."""
    seeds = sorted({seed for one in found if one is not None for seed in one.of})
    return tuple((name, seed) for name in names for seed in seeds)


def missing(what: str = "") -> Judged:
    """Return that there are no rows to judge by."""
    return Judged(Verdict.MISSING, f"{what}: not measured" if what else "not measured")


def by_sign(found: Spread | None, wanted: int, what: str, names: Sequence[str]) -> Judged:
    """Return the verdict on a difference that is said to be above (1) or below (-1) zero."""
    if found is None:
        return missing(what)
    verdict = {wanted: Verdict.SUPPORTED, -wanted: Verdict.CONTRADICTED}.get(found.sign, Verdict.UNDECIDED)
    return Judged(verdict, f"{what}: {found.points()} points", used(names, found))


def gain(claimed: float) -> Callable[[GridRecords], Judged]:
    """Judge the paper's own comparison, best distilled less undistilled, against so many percentage points."""

    def judge(grid: GridRecords) -> Judged:
        names = (grid.best, "node1")
        found = difference(grid, *names)
        if found is None:
            return missing()
        verdict = Verdict.SUPPORTED if 100 * found.low >= claimed else Verdict.UNDECIDED
        verdict = Verdict.CONTRADICTED if 100 * found.high < claimed else verdict
        words = "the paper's best cell (distilled, SGD) less NODE(1) on labels (Adam), two changes at once"
        return Judged(verdict, f"{words}: {found.points()} points", used(names, found))

    return judge


def gain_by_the_same(grid: GridRecords) -> Judged:
    """Judge distillation alone: the same student, optimiser and rate, without the teacher."""
    names = (grid.best, "labels-sgd-scale")
    return by_sign(difference(grid, *names), 1, "the paper's best cell less the same on labels", names)


def by_temperature(wanted: int) -> Callable[[GridRecords], Judged]:
    """Judge the hottest temperature less the coldest, mean over teachers; said to be above (1) or below (-1) zero."""

    def judge(grid: GridRecords) -> Judged:
        temperatures = _temperatures(grid)
        found, what, names = _hotter(grid, temperatures[-1], temperatures[0])
        return by_sign(found, wanted, what, names)

    return judge


def limited_by_temperature(grid: GridRecords) -> Judged:
    """Judge that the hottest temperature adds less than a point to the one below it, mean over teachers."""
    found, what, names = _hotter(grid, *reversed(_temperatures(grid)[-2:]))
    if found is None:
        return missing(what)
    verdict = Verdict.SUPPORTED if found.high < SMALL else Verdict.UNDECIDED
    verdict = Verdict.CONTRADICTED if found.low >= SMALL else verdict
    return Judged(verdict, f"{what}: {found.points()} points; limited is less than one", used(names, found))


def _temperatures(grid: GridRecords) -> list[float]:
    return sorted({cell.temperature for cell in grid.cells if "table2" in cell.parts and cell.temperature is not None})


def _hotter(grid: GridRecords, hot: float, cold: float) -> tuple[Spread | None, str, tuple[str, ...]]:
    cells = {cell.name: cell.temperature for cell in grid.cells if "table2" in cell.parts and cell.temperature in (hot, cold)}
    depths = len(cells) / 2
    found = combined({name: (1 if hot == T else -1) / depths for name, T in cells.items()}, grid)
    return found, f"T = {hot:g} less T = {cold:g}, mean over teachers", tuple(cells)


def by_teacher(grid: GridRecords) -> Judged:
    """Judge the straight line through accuracies by the teachers' order of depth, from end to end."""
    cells = [cell for cell in grid.cells if "table2" in cell.parts and cell.seed == 0]
    depths = sorted({cell.depth for cell in cells if cell.depth is not None})
    centred = {depth: place - (len(depths) - 1) / 2 for place, depth in enumerate(depths)}
    squares = sum(value**2 for value in centred.values()) * len(cells) / len(depths)
    slope = {cell.name: (len(depths) - 1) * centred[cell.depth] / squares for cell in cells if cell.depth is not None}
    found, what = combined(slope, grid), f"from ResNet-{depths[0]} to ResNet-{depths[-1]} by a straight line"
    if found is None:
        return missing(what)
    verdict = Verdict.CONTRADICTED if found.sign else Verdict.UNDECIDED
    if not found.sign and max(-found.low, found.high) < SMALL:
        verdict = Verdict.SUPPORTED
    words = f"{what}: {found.points()} points{_about_teachers(grid, f'resnet{depths[0]}', f'resnet{depths[-1]}')}"
    return Judged(verdict, words, used(tuple(slope), found))


def _about_teachers(grid: GridRecords, first: str, last: str) -> str:
    """Return how good the two teachers at the ends are themselves, and whether their depth can be told from that."""
    gap = difference(grid, last, first)
    if gap is None:
        return ""
    own = " and ".join(percent_of(spread(grid, name)) for name in (first, last))
    apart = ", so their depth is not told from how well they are trained" if gap.sign else ""
    return f"; these two teachers have {own} % themselves{apart}"


def beats_its_teacher(some: bool) -> Callable[[GridRecords], Judged]:
    """Judge that some student, or that none, is more accurate than its teacher."""

    def judge(grid: GridRecords) -> Judged:
        cells = {cell.name: f"resnet{cell.depth}" for cell in grid.cells if "table2" in cell.parts}
        return _pair_by_pair(grid, list(cells.items()), some, "pairs of a student and its teacher")

    return judge


def below_residual_networks(grid: GridRecords) -> Judged:
    """Judge that each undistilled student of Table 1 is less accurate than each residual network."""
    networks = [name for name in grid.names("table1") if name.startswith("resnet")]
    pairs = [(student, network) for student in ("node1", "node100") for network in networks]
    return _pair_by_pair(grid, pairs, False, "pairs of a NODE and a ResNet")


def _pair_by_pair(grid: GridRecords, pairs: list[tuple[str, str]], some: bool, what: str) -> Judged:
    """Judge that in some pair, or in none, the first is more accurate than the second."""
    confidence = 1 - 0.05 / max(1, len(pairs))  # Bonferroni: one of many is above by chance more easily than one of one
    found = {pair: difference(grid, *pair, confidence=confidence) for pair in pairs}
    known = {pair: gap for pair, gap in found.items() if gap is not None}
    if not known:
        return missing()
    above, below = (sum(gap.sign == sign for gap in known.values()) for sign in (1, -1))
    words = f"of {len(known)} {what}, the first is above in {above}, below in {below}; the others cannot be told apart"
    all_below = below == len(pairs)
    supported, contradicted = (above > 0, all_below) if some else (all_below, above > 0)
    verdict = Verdict.SUPPORTED if supported else Verdict.CONTRADICTED if contradicted else Verdict.UNDECIDED
    return Judged(verdict, words, tuple(dict.fromkeys(row for pair, gap in known.items() for row in used(pair, gap))))
