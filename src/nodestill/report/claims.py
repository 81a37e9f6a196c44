"""Every claim in the paper's sentences, and what the rows of a grid say of it: supported, contradicted or undecided here.

A claim is decided by an interval (that on evaluations of f by their mean): what reaches over the line in question is undecided.
Of a claim whose rows are not there, nothing is said but that.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from nodestill.experiments.records import GridRecords, RunRecords
from nodestill.report.spread import Measured, Spread, combined, difference, hits_of, mean_of, spread
from nodestill.report.tables import Table

_SMALL = 0.01  # a trend of less than a point from end to end is none
_ATTACKS = ("pgd", "mi-fgsm")


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


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper.

    Attributes:
        where: Its section.
        sentence: What it says.
        judge: What the rows of a grid say of it.
        datasets: Of which data sets it is said.
    """

    where: str
    sentence: str
    judge: Callable[[GridRecords], Judged]
    datasets: tuple[str, ...] = ("cifar10", "svhn")


def claims_table(grid: GridRecords) -> Table:
    """Return every claim about the data set of a grid with its verdict and its rows."""
    judged = [(claim, claim.judge(grid)) for claim in claims() if grid.dataset in claim.datasets]
    rows = [(c.where, c.sentence, j.verdict.value, j.measured, _folders(grid, j.cells)) for c, j in judged]
    headers = ("Section", "The paper's claim", "Here", "Measured", "Rows")
    notes = (
        "Robustness is that under the paper's own attacks, which are weak: a model said to be robust is so under these, and "
        "its accuracies are upper bounds. `nodestill audit` says what they are worth.",
    )
    return Table(headers, tuple(rows), notes=notes, keys=tuple(j.verdict.name.lower() for _, j in judged), text_columns=5)


def _folders(grid: GridRecords, names: tuple[str, ...]) -> str:
    return ", ".join(cell.folder or "" for name in names for _, cell in sorted(grid.named(name).items()))


def by_sign(found: Spread | None, wanted: int, what: str, cells: tuple[str, ...]) -> Judged:
    """Return the verdict on a difference that is said to be above (1) or below (-1) zero."""
    if found is None:
        return Judged(Verdict.MISSING, f"{what}: not measured", ())
    verdict = {wanted: Verdict.SUPPORTED, -wanted: Verdict.CONTRADICTED}.get(found.sign, Verdict.UNDECIDED)
    return Judged(verdict, f"{what}: {found.points()} points", cells)


def curve(run: RunRecords) -> tuple[int, int] | None:
    """Return the mean accuracy over all radii above zero and both attacks, as hits of the attacked images."""
    rows = [row for row in run.robustness if row["eps_255"] > 0 and row["attack"] in _ATTACKS]
    if not rows:
        return None
    images = rows[0]["images"]
    return round(images * sum(row["accuracy"] for row in rows) / len(rows)), images


def at(attack: str, eps_255: int) -> Measured:
    """Return what reads one point of a curve."""

    def measured(run: RunRecords) -> tuple[int, int] | None:
        rows = [row for row in run.robustness if (row["attack"], row["eps_255"]) == (attack, eps_255)]
        return (rows[0]["correct"], rows[0]["images"]) if rows else None

    return measured


def _gain(claimed: float) -> Callable[[GridRecords], Judged]:
    def judge(grid: GridRecords) -> Judged:
        cells = (grid.best, "node1")
        found = difference(hits_of(grid, grid.best), hits_of(grid, "node1"))
        if found is None:
            return Judged(Verdict.MISSING, "not measured", ())
        verdict = Verdict.SUPPORTED if 100 * found.low >= claimed else Verdict.UNDECIDED
        verdict = Verdict.CONTRADICTED if 100 * found.high < claimed else verdict
        words = "best distilled (SGD) less undistilled NODE(1) (Adam), two changes at once"
        return Judged(verdict, f"{words}: {found.points()} points", cells)

    return judge


def _gain_by_the_same(grid: GridRecords) -> Judged:
    """Judge distillation alone: the same student, optimiser and rate, without the teacher."""
    cells = (grid.best, "labels-sgd-scale")
    return by_sign(difference(*[hits_of(grid, name) for name in cells]), 1, "best distilled less the same on labels", cells)


def _by_temperature(wanted: int) -> Callable[[GridRecords], Judged]:
    def judge(grid: GridRecords) -> Judged:
        named = {(cell.depth, cell.temperature): cell.name for cell in grid.cells if "table2" in cell.parts}
        coldest, hottest = (pick({T for _, T in named if T is not None}) for pick in (min, max))
        weights = {name: (hottest == T) - (coldest == T) for (_, T), name in named.items() if T in (coldest, hottest)}
        depths = len(weights) / 2
        found = combined({name: sign / depths for name, sign in weights.items()}, grid)
        return by_sign(found, wanted, f"T = {hottest:g} less T = {coldest:g}, mean over teachers", tuple(weights))

    return judge


def _by_teacher(grid: GridRecords) -> Judged:
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


def _beats_its_teacher(some: bool) -> Callable[[GridRecords], Judged]:
    """Judge that some student, or that none, is more accurate than its teacher."""

    def judge(grid: GridRecords) -> Judged:
        cells = {cell.name: f"resnet{cell.depth}" for cell in grid.cells if "table2" in cell.parts}
        confidence = 1 - 0.05 / len(cells)  # Bonferroni: one of many is above its teacher by chance more easily than one of one
        found = {one: difference(hits_of(grid, one), hits_of(grid, other), confidence) for one, other in cells.items()}
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


def _more_robust(one: str | None, other: str | None, wanted: int, what: str) -> Callable[[GridRecords], Judged]:
    """Judge whose mean over all radii and both attacks is higher; None is the best cell, `resnet` its teacher."""

    def judge(grid: GridRecords) -> Judged:
        names = [grid.best_teacher if name == "resnet" else name or grid.best for name in (one, other)]
        hits = [hits_of(grid, name, curve) for name in names]
        counts = [sorted({count for _, count in found.values()}) for found in hits]
        if all(counts) and counts[0] != counts[1]:
            return Judged(Verdict.UNDECIDED, f"{what}: not of the same images ({counts[0]} and {counts[1]})", tuple(names))
        found = difference(*hits)
        return by_sign(found, wanted, f"{what}, mean over radii and attacks", tuple(names))

    return judge


def _resists(name: str | None, eps_255: int) -> Callable[[GridRecords], Judged]:
    def judge(grid: GridRecords) -> Judged:
        cell = name or grid.best
        found, runs = spread(hits_of(grid, cell, at("pgd", eps_255))), grid.named(cell)
        if found is None:
            return Judged(Verdict.MISSING, f"PGD {eps_255}/255: not measured", ())
        chance = mean_of(runs, lambda run: 1 / len(run.recipe["class_names"])) or 0.0
        verdict = (
            Verdict.SUPPORTED if found.low > chance else Verdict.CONTRADICTED if found.high < chance else Verdict.UNDECIDED
        )
        words = f"{found.percent()} % under PGD at {eps_255}/255 ({found.interval()}), guessing {100 * chance:g}"
        return Judged(verdict, words, (cell,))

    return judge


def _remains(percent: float) -> Callable[[GridRecords], Judged]:
    def judge(grid: GridRecords) -> Judged:
        found = spread(hits_of(grid, "node500", at("pgd", 20)))
        if found is None:
            return Judged(Verdict.MISSING, "PGD 20/255: not measured", ())
        verdict = Verdict.SUPPORTED if 100 * found.low >= percent else Verdict.UNDECIDED
        verdict = Verdict.CONTRADICTED if 100 * found.high < percent else verdict
        return Judged(verdict, f"{found.percent()} % under PGD at 20/255 ({found.interval()})", ("node500",))

    return judge


def _mechanism(grid: GridRecords) -> Judged:
    """Show that a horizon is no mechanism: 100·f on [0, 1] is the same function. Of gradients nothing here says anything."""
    cells = ("kd-node100", "kd-scaled-f")
    found = difference(*[hits_of(grid, name, curve) for name in cells])
    if found is None:
        return Judged(Verdict.MISSING, "not measured", ())
    words = "distilled NODE(100) less 100·f on [0, 1], by theory the same"
    return Judged(Verdict.UNDECIDED, f"{words}: {found.points()} points, mean over radii and attacks", cells)


def _depth(grid: GridRecords) -> Judged:
    """Judge evaluations of f against the depths of the teachers."""
    cells = grid.named(grid.best)
    calls = mean_of(cells, lambda run: run.evaluation["evaluations"]["mean"] if run.evaluation.get("evaluations") else None)
    depths = sorted(cell.depth for cell in grid.cells if cell.name.startswith("resnet") and cell.depth is not None)
    if calls is None or not depths:
        return Judged(Verdict.MISSING, "not measured", ())
    layers = mean_of(cells, lambda run: run.recipe["model"]["layers"]) or 0.0
    verdict = Verdict.SUPPORTED if calls > depths[-1] else Verdict.CONTRADICTED if calls < depths[0] else Verdict.UNDECIDED
    words = f"{calls:.1f} evaluations, {calls * layers:.0f} convolutions in f; ResNets have {depths[0]} to {depths[-1]} layers"
    return Judged(verdict, words, (grid.best,))


def _drop(one: str, other: str | None, what: str) -> Callable[[GridRecords], Judged]:
    def judge(grid: GridRecords) -> Judged:
        against = other or grid.best
        return by_sign(difference(hits_of(grid, one), hits_of(grid, against)), -1, what, (one, against))

    return judge


def claims() -> tuple[Claim, ...]:
    """Return the claims, in the order of the paper."""
    cifar, svhn = ("cifar10",), ("svhn",)
    return (
        Claim("3.1", "The depth of Neural ODEs, their evaluations of f, is usually larger than the depth of ResNets.", _depth),
        Claim("4.2", "Distillation improves the accuracy of Neural ODEs by 24.58 points.", _gain(24.58), cifar),
        Claim("4.2", "Distillation improves the accuracy of Neural ODEs by 5.17 points.", _gain(5.17), svhn),
        Claim("4.2", "Distillation improves the accuracy of Neural ODEs: the optimiser held.", _gain_by_the_same),
        Claim("4.2", "No student outperforms its teacher.", _beats_its_teacher(False), cifar),
        Claim("4.2", "Some students outperform their teachers.", _beats_its_teacher(True), svhn),
        Claim("4.2.1", "Results at a small temperature are inferior to those at a large one.", _by_temperature(1), cifar),
        Claim("4.2.1", "Increasing the temperature decreases the effect of distillation.", _by_temperature(-1), svhn),
        Claim("4.2.2", "There is no particular pattern in the teacher's number of layers.", _by_teacher),
        Claim(
            "4.3.2",
            "Distillation improves the robustness of NODE(1).",
            _more_robust(None, "node1", 1, "NODE(1), distilled less undistilled"),
        ),
        Claim(
            "4.3.2",
            "Distillation improves the robustness of NODE(100).",
            _more_robust("kd-node100", "node100", 1, "NODE(100), distilled less undistilled"),
        ),
        Claim(
            "4.3.3",
            "Without distillation NODE(1) is not even as robust as ResNet.",
            _more_robust("node1", "resnet", -1, "undistilled NODE(1) less ResNet"),
        ),
        Claim(
            "4.3.3",
            "Without distillation NODE(100) is not as robust as ResNet.",
            _more_robust("node100", "resnet", -1, "undistilled NODE(100) less ResNet"),
        ),
        Claim("4.3.3", "Distilled NODE(1) resists until ε is 8/255.", _resists(None, 8), cifar),
        Claim("4.3.3", "Distilled NODE(100) resists until ε is 20/255.", _resists("kd-node100", 20), cifar),
        Claim(
            "4.3.3",
            "A longer horizon improves robustness (distilled).",
            _more_robust("kd-node100", None, 1, "distilled NODE(100) less distilled NODE(1)"),
        ),
        Claim(
            "4.3.3",
            "A longer horizon improves robustness (undistilled).",
            _more_robust("node100", "node1", 1, "undistilled NODE(100) less undistilled NODE(1)"),
        ),
        Claim("4.3.3", "It is the horizon that gives robustness, not how the gradients come about.", _mechanism),
        Claim("4.3.3", "The effect of distillation falls slightly as the horizon grows.", _drop("kd-node100", None, _LONG)),
        Claim("4.3.3", "NODE(500) keeps 20 % at ε = 20/255.", _remains(20.24), cifar),
        Claim(
            "4.3.3",
            "NODE(500) is more robust than NODE(1), both undistilled.",
            _more_robust("node500", "node1", 1, "NODE(500) less NODE(1), undistilled"),
            cifar,
        ),
    )


_LONG = "distilled NODE(100) less distilled NODE(1), clean"
