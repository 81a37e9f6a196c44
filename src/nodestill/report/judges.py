"""How the rows of a grid decide on a claim: by an interval, and what reaches over the line in question is undecided.

A judge takes a grid and returns a verdict with the numbers behind it. Of rows that are not there it says nothing but that.
Where the paper's own comparison changes more than one thing, another judge holds the others.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from nodestill.report.select import mean_evaluations
from nodestill.report.spread import Spread, combined, difference, mean_of, percent_of, spread
from nodestill.report.under_attack import attacked, difference_under_attack
from nodestill.reproduction.grid_records import GridRecords

TEACHER = "resnet"  # of the best cell
_SMALL = 0.01  # a trend of less than a point from end to end is none


class Verdict(Enum):
    """What our rows say of a sentence of the paper."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    UNDECIDED = "undecided"
    MISSING = "not measured"


@dataclass(frozen=True)
class Judged:
    """A verdict, the numbers behind it in words, and the cells whose rows they are."""

    verdict: Verdict
    measured: str
    cells: tuple[str, ...]


def by_sign(found: Spread | None, wanted: int, what: str, cells: tuple[str, ...]) -> Judged:
    """Return the verdict on a difference that is said to be above (1) or below (-1) zero."""
    if found is None:
        return Judged(Verdict.MISSING, f"{what}: not measured", ())
    verdict = {wanted: Verdict.SUPPORTED, -wanted: Verdict.CONTRADICTED}.get(found.sign, Verdict.UNDECIDED)
    return Judged(verdict, f"{what}: {found.points()} points", cells)


def gain(claimed: float) -> Callable[[GridRecords], Judged]:
    """Judge the paper's own comparison, best distilled less undistilled, against so many percentage points."""

    def judge(grid: GridRecords) -> Judged:
        cells = (grid.best, "node1")
        found = difference(grid, *cells)
        if found is None:
            return Judged(Verdict.MISSING, "not measured", ())
        verdict = Verdict.SUPPORTED if 100 * found.low >= claimed else Verdict.UNDECIDED
        verdict = Verdict.CONTRADICTED if 100 * found.high < claimed else verdict
        words = "best distilled (SGD) less undistilled NODE(1) (Adam), two changes at once"
        return Judged(verdict, f"{words}: {found.points()} points", cells)

    return judge


def gain_by_the_same(grid: GridRecords) -> Judged:
    """Judge distillation alone: the same student, optimiser and rate, without the teacher."""
    cells = (grid.best, "labels-sgd-scale")
    return by_sign(difference(grid, *cells), 1, "best distilled less the same on labels", cells)


def by_temperature(wanted: int) -> Callable[[GridRecords], Judged]:
    """Judge the hottest temperature less the coldest, mean over teachers; said to be above (1) or below (-1) zero."""

    def judge(grid: GridRecords) -> Judged:
        named = {(cell.depth, cell.temperature): cell.name for cell in grid.cells if "table2" in cell.parts}
        coldest, hottest = (pick({T for _, T in named if T is not None}) for pick in (min, max))
        weights = {name: (hottest == T) - (coldest == T) for (_, T), name in named.items() if T in (coldest, hottest)}
        depths = len(weights) / 2
        found = combined({name: sign / depths for name, sign in weights.items()}, grid)
        return by_sign(found, wanted, f"T = {hottest:g} less T = {coldest:g}, mean over teachers", tuple(weights))

    return judge


def by_teacher(grid: GridRecords) -> Judged:
    """Judge the straight line through accuracies by the teachers' order of depth, from end to end."""
    cells = [cell for cell in grid.cells if "table2" in cell.parts and cell.seed == 0]
    depths = sorted({cell.depth for cell in cells if cell.depth is not None})
    centred = {depth: place - (len(depths) - 1) / 2 for place, depth in enumerate(depths)}
    squares = sum(value**2 for value in centred.values()) * len(cells) / len(depths)
    slope = {cell.name: (len(depths) - 1) * centred[cell.depth] / squares for cell in cells if cell.depth is not None}
    found, names = combined(slope, grid), tuple(slope)
    what = f"from ResNet-{depths[0]} to ResNet-{depths[-1]} by a straight line"
    if found is None:
        return Judged(Verdict.MISSING, f"{what}: not measured", ())
    verdict = Verdict.CONTRADICTED if found.sign else Verdict.UNDECIDED
    if not found.sign and max(-found.low, found.high) < _SMALL:
        verdict = Verdict.SUPPORTED
    return Judged(verdict, f"{what}: {found.points()} points", names)


def beats_its_teacher(some: bool) -> Callable[[GridRecords], Judged]:
    """Judge that some student, or that none, is more accurate than its teacher."""

    def judge(grid: GridRecords) -> Judged:
        cells = {cell.name: f"resnet{cell.depth}" for cell in grid.cells if "table2" in cell.parts}
        confidence = 1 - 0.05 / len(cells)  # Bonferroni: one of many is above its teacher by chance more easily than one of one
        found = {one: difference(grid, one, other, confidence=confidence) for one, other in cells.items()}
        known = {name: gap for name, gap in found.items() if gap is not None}
        if not known:
            return Judged(Verdict.MISSING, "not measured", ())
        above = [name for name, gap in known.items() if gap.sign == 1]
        below = [name for name, gap in known.items() if gap.sign == -1]
        words = f"of {len(known)} students {len(above)} are above their teacher, {len(below)} below, the others level"
        all_below = len(below) == len(cells)
        supported, contradicted = (bool(above), all_below) if some else (all_below, bool(above))
        verdict = Verdict.SUPPORTED if supported else Verdict.CONTRADICTED if contradicted else Verdict.UNDECIDED
        return Judged(verdict, words, tuple(known))

    return judge


def more_robust(one: str | None, other: str | None, wanted: int = 1) -> Callable[[GridRecords], Judged]:
    """Judge whose mean over all radii and both attacks is higher; None is the best cell, `TEACHER` its teacher."""

    def judge(grid: GridRecords) -> Judged:
        names = [grid.best_teacher if name == TEACHER else name or grid.best for name in (one, other)]
        about = [grid.first(name).about for name in names]
        found = difference_under_attack(grid, *names)
        judged = by_sign(found, wanted, f"{about[0]} less {about[1]}, mean over radii and attacks", tuple(names))
        clean = " and ".join(percent_of(spread(grid, name)) for name in names)  # few to lose, if few are right
        return (
            judged if found is None else replace(judged, measured=f"{judged.measured}; of all clean images {clean} % are right")
        )

    return judge


def resists(name: str | None, eps_255: int) -> Callable[[GridRecords], Judged]:
    """Judge that a cell, None for the best, is right more often than by guessing under PGD at a radius in 1/255."""

    def judge(grid: GridRecords) -> Judged:
        cell = name or grid.best
        found, runs = spread(grid, cell, attacked("pgd", eps_255)), grid.named(cell)
        if found is None:
            return Judged(Verdict.MISSING, f"PGD {eps_255}/255: not measured", ())
        chance = mean_of(runs, lambda run: 1 / len(run.recipe["class_names"])) or 0.0
        verdict = (
            Verdict.SUPPORTED if found.low > chance else Verdict.CONTRADICTED if found.high < chance else Verdict.UNDECIDED
        )
        words = f"{found.percent()} % under PGD at {eps_255}/255 ({found.interval()}), guessing {100 * chance:g}"
        return Judged(verdict, words, (cell,))

    return judge


def remains(percent: float) -> Callable[[GridRecords], Judged]:
    """Judge that NODE(500) keeps so many percent under PGD at 20/255."""

    def judge(grid: GridRecords) -> Judged:
        found = spread(grid, "node500", attacked("pgd", 20))
        if found is None:
            return Judged(Verdict.MISSING, "PGD 20/255: not measured", ())
        verdict = Verdict.SUPPORTED if 100 * found.low >= percent else Verdict.UNDECIDED
        verdict = Verdict.CONTRADICTED if 100 * found.high < percent else verdict
        return Judged(verdict, f"{found.percent()} % under PGD at 20/255 ({found.interval()})", ("node500",))

    return judge


def mechanism(grid: GridRecords) -> Judged:
    """Show that a horizon is no mechanism: 100·f on [0, 1] is the same function. Of gradients nothing here says anything."""
    cells = ("kd-node100", "kd-scaled-f")
    found = difference_under_attack(grid, *cells)
    if found is None:
        return Judged(Verdict.MISSING, "not measured", ())
    words = "distilled NODE(100) less 100·f on [0, 1], by theory the same"
    return Judged(Verdict.UNDECIDED, f"{words}: {found.points()} points, mean over radii and attacks", cells)


def depth(grid: GridRecords) -> Judged:
    """Judge evaluations of f against the depths of the teachers."""
    cells = grid.named(grid.best)
    calls = mean_of(cells, mean_evaluations)
    depths = sorted(cell.depth for cell in grid.cells if cell.name.startswith("resnet") and cell.depth is not None)
    if calls is None or not depths:
        return Judged(Verdict.MISSING, "not measured", ())
    layers = mean_of(cells, lambda run: run.recipe["model"]["layers"]) or 0.0
    verdict = Verdict.SUPPORTED if calls > depths[-1] else Verdict.CONTRADICTED if calls < depths[0] else Verdict.UNDECIDED
    words = f"{calls:.1f} evaluations, {calls * layers:.0f} convolutions in f; ResNets have {depths[0]} to {depths[-1]} layers"
    return Judged(verdict, words, (grid.best,))


def falls_with_the_horizon(grid: GridRecords) -> Judged:
    """Judge what distillation adds at a horizon of 100 less what it adds at 1, all four trained by Adam."""
    weights = {"kd-node100": 1.0, "node100": -1.0, "kd-adam-scale": -1.0, "node1": 1.0}
    found = combined(weights, grid)
    return by_sign(found, -1, "gain at horizon 100 less gain at 1, by Adam, clean", tuple(weights))
