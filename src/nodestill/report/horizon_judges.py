"""How rows decide on what the paper says of depth and horizons, clean: evaluations, end times, the gain at a longer horizon."""

from nodestill.report.formats import joined
from nodestill.report.judges import BY_ADAM, SMALL, Judged, Verdict, by_sign, missing, used
from nodestill.report.select import chance, mean_evaluations
from nodestill.report.spread import combined, difference, mean_of, spread
from nodestill.reproduction.grid_records import GridRecords


def depth(grid: GridRecords) -> Judged:
    """Judge evaluations of f against the depths of the teachers, at the student's tolerance and at finer ones.

    Evaluations hang on the tolerance, of which the paper says nothing. So the claim stands if more than half of the depths are
    exceeded at all of them, and falls if at none; one tolerance alone decides nothing.
    """
    depths = sorted({cell.depth for cell in grid.cells if cell.name.startswith("resnet") and cell.depth is not None})
    calls = _evaluations(grid)
    if not calls or not depths:
        return missing()
    exceeded = {rtol: sum(round(number) > layers for layers in depths) for rtol, number in calls.items()}
    most = {2 * number > len(depths) for number in exceeded.values()}
    decided = len(most) == 1 and len(calls) > 1
    verdict = Verdict.UNDECIDED if not decided else Verdict.SUPPORTED if most == {True} else Verdict.CONTRADICTED
    layers = mean_of(grid.named(grid.best), lambda run: run.recipe["model"]["layers"]) or 0.0
    parts = [
        f"{number:.0f} at rtol {rtol:g} ({number * layers:.0f} convolutions) exceed {exceeded[rtol]}"
        for rtol, number in calls.items()
    ]
    words = (
        f"evaluations and the {len(depths)} depths, {depths[0]} to {depths[-1]}: {joined(parts)}; the paper has no tolerance"
        f"{'' if len(calls) > 1 else ', and no finer one was scored'}"
    )
    return Judged(verdict, words, tuple((grid.best, seed) for seed in sorted(grid.named(grid.best))))


def _evaluations(grid: GridRecords) -> dict[float, float]:
    """Return evaluations for a clean image by relative tolerance, the best cell's own first; of its scorings the finer ones."""
    cells = grid.named(grid.best)
    own, rtol = mean_of(cells, mean_evaluations), mean_of(cells, lambda run: run.recipe["model"]["solver"]["rtol"])
    if own is None or rtol is None:
        return {}
    rows = [row for cell in cells.values() for row in cell.solvers if row["name"] in ("finer", "adaptive") and "solver" in row]
    finer = sorted({row["solver"]["rtol"] for row in rows if row["solver"]["rtol"] < rtol}, reverse=True)
    by_tolerance = {one: [row["evaluations"] for row in rows if row["solver"]["rtol"] == one] for one in finer}
    return {rtol: own, **{one: sum(calls) / len(calls) for one, calls in by_tolerance.items()}}


def poorer_at_two(grid: GridRecords) -> Judged:
    """Judge the end time 2 less the end time 1, both distilled by SGD."""
    names = ("kd-end-2", grid.best)
    return by_sign(difference(grid, *names), -1, "end time 2 less end time 1, distilled, SGD", names)


def ends_at_five(grid: GridRecords) -> Judged:
    """Judge whether training with a teacher by SGD fails at 5 for certain; if it works, that says nothing of longer ones."""
    found, gap = spread(grid, "kd-end-5"), difference(grid, "kd-end-5", grid.best)
    if found is None or gap is None:
        return missing("end time 5, distilled, SGD")
    guessing = mean_of(grid.named("kd-end-5"), chance) or 0.0
    verdict = Verdict.SUPPORTED if found.high <= guessing + SMALL else Verdict.UNDECIDED
    words = f"at 5, by SGD, {found.percent()} % (guessing {100 * guessing:g}), less end time 1: {gap.points()} points"
    return Judged(verdict, f"{words}; longer ones are not trained by SGD", used(("kd-end-5", grid.best), gap))


def falls_with_the_horizon(grid: GridRecords) -> Judged:
    """Judge what distillation adds at a horizon of 100 less what it adds at 1, all four by Adam: if it adds anything at 1."""
    names = ("kd-node100", "node100", BY_ADAM, "node1")
    at_long, at_one = difference(grid, *names[:2]), difference(grid, *names[2:])
    judged = by_sign(combined(dict(zip(names, (1.0, -1.0, -1.0, 1.0))), grid), -1, "gain at 100 less gain at 1", names)
    if at_long is None or at_one is None or judged.verdict is Verdict.MISSING:
        return missing("gain at horizon 100 less gain at 1, by Adam, clean")
    words = f"by Adam, clean, the gain is {at_long.points()} at horizon 100 and {at_one.points()} at 1; {judged.measured}"
    rows = used(names[:2], at_long) + used(names[2:], at_one)
    if judged.verdict is Verdict.SUPPORTED and at_one.sign < 1:
        return Judged(Verdict.UNDECIDED, f"{words}; at 1 no gain is shown that could fall", rows)
    return Judged(judged.verdict, words, rows)
