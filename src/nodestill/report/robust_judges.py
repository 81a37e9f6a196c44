"""How rows decide on what the paper says of robustness. It is that under the paper's own attacks."""

from collections.abc import Callable
from dataclasses import replace

from nodestill.report.judges import BY_ADAM, Judged, Verdict, by_sign, missing, used
from nodestill.report.select import chance
from nodestill.report.spread import mean_of, percent_of, spread
from nodestill.report.under_attack import attacked, difference_under_attack
from nodestill.reproduction.grid_records import GridRecords

TEACHER = "resnet"  # of the best cell


def more_robust(one: str | None, other: str | None, wanted: int = 1) -> Callable[[GridRecords], Judged]:
    """Judge whose mean over all radii and both attacks is higher; None is the best cell, `TEACHER` its teacher."""

    def judge(grid: GridRecords) -> Judged:
        names = [grid.best_teacher if name == TEACHER else name or grid.best for name in (one, other)]
        about = [grid.first(name).about for name in names]
        found = difference_under_attack(grid, *names)
        judged = by_sign(found, wanted, f"{about[0]} less {about[1]}, mean over radii and attacks", names)
        if found is None:
            return judged
        clean = " and ".join(percent_of(spread(grid, name, seeds=found.of)) for name in names)  # few to lose, if few are right
        return replace(judged, measured=f"{judged.measured}; of all clean images {clean} % are right")

    return judge


def resists(name: str | None, eps_255: int) -> Callable[[GridRecords], Judged]:
    """Judge that a cell, None for the best, is right more often than by guessing under PGD at a radius in 1/255."""

    def judge(grid: GridRecords) -> Judged:
        cell = name or grid.best
        found = spread(grid, cell, attacked("pgd", eps_255))
        if found is None:
            return missing(f"PGD {eps_255}/255")
        guessing = mean_of(grid.named(cell), chance) or 0.0
        verdict = Verdict.SUPPORTED if found.low > guessing else Verdict.UNDECIDED
        verdict = Verdict.CONTRADICTED if found.high < guessing else verdict
        words = f"{found.percent()} % under PGD at {eps_255}/255 ({found.interval()}), guessing {100 * guessing:g}"
        return Judged(verdict, words, used((cell,), found))

    return judge


def remains(percent: float) -> Callable[[GridRecords], Judged]:
    """Judge that NODE(500) keeps so many percent under PGD at 20/255."""

    def judge(grid: GridRecords) -> Judged:
        found = spread(grid, "node500", attacked("pgd", 20))
        if found is None:
            return missing("PGD 20/255")
        verdict = Verdict.SUPPORTED if 100 * found.low >= percent else Verdict.UNDECIDED
        verdict = Verdict.CONTRADICTED if 100 * found.high < percent else verdict
        return Judged(verdict, f"{found.percent()} % under PGD at 20/255 ({found.interval()})", used(("node500",), found))

    return judge


def mechanism(grid: GridRecords) -> Judged:
    """Judge by 100·f on [0, 1], which is the same function as horizon 100, whether it is the horizon that makes robust.

    First a longer horizon has to be more robust. If it is, and 100·f on [0, 1] is so too, it is not the horizon.
    """
    names = ("kd-node100", "kd-scaled-f", BY_ADAM)
    longer, scaled = (difference_under_attack(grid, name, BY_ADAM) for name in names[:2])
    apart = difference_under_attack(grid, *names[:2])
    if longer is None or scaled is None or apart is None:
        return missing("distilled NODE(100), 100·f on [0, 1] and NODE(1)")
    verdict = {(0, 1): Verdict.CONTRADICTED, (-1, 1): Verdict.CONTRADICTED}.get((apart.sign, scaled.sign), Verdict.UNDECIDED)
    verdict = Verdict.SUPPORTED if (apart.sign, scaled.sign) in ((1, 0), (1, -1)) else verdict
    premise = "" if longer.sign == 1 else "its premise is not shown: "
    words = (
        f"{premise}by Adam, mean over radii and attacks, distilled NODE(100) less NODE(1) {longer.points()} points; "
        f"100·f on [0, 1], by theory the same, less NODE(1) {scaled.points()}; NODE(100) less 100·f {apart.points()}"
    )
    rows = used(names, longer, scaled, apart)
    return Judged(Verdict.UNDECIDED if premise else verdict, words, rows)
