"""What each table says, in two or three sentences made from its rows; nothing is said of rows that are not there."""

from collections.abc import Callable

from nodestill.report.claims import judged_claims
from nodestill.report.controlled import factors, rates, structure
from nodestill.report.formats import duration, joined
from nodestill.report.judges import Verdict
from nodestill.report.solved import change_of, epoch_seconds, horizon_names, scorings, sign_of_change
from nodestill.report.spread import Spread, combined, difference, hits_of, spread
from nodestill.report.under_attack import attacked, difference_under_attack, measured_radius
from nodestill.reproduction.grid_records import GridRecords

_NEAR = 2  # where something is left to compare
_MEANT = {  # by the sign of the change without the equation
    -1: ": so much of it is the equation's, with these weights",
    0: ", which is not told from none: nothing of it is shown to be the equation's, with these weights",
    1: ": the equation costs so much of it, with these weights",
}


def say(grid: GridRecords, table: str) -> tuple[str, ...]:
    """Return the sentences on a table of a grid, two if its rows are there; of claims three."""
    speakers: dict[str, Callable[[GridRecords], list[str | None]]] = {
        "table1": _table1,
        "table2": _table2,
        "table3": _table3,
        "figure1": _figure1,
        "controls": _controls,
        "factors": _factors,
        "solvers": _solvers,
        "horizons": _horizons,
        "claims": _claims,
    }
    return tuple(sentence for sentence in speakers[table](grid) if sentence is not None)


def _table1(grid: GridRecords) -> list[str | None]:
    one, teachers = spread(grid, "node1"), [name for name in grid.names("table1") if name.startswith("resnet")]
    found = [measured for name in teachers if (measured := spread(grid, name)) is not None]
    between = ""
    if found:
        low, high = (100 * pick(measured.mean for measured in found) for pick in (min, max))
        between = f"; the teachers reach {low:.1f} to {high:.1f} %"
    first = None if one is None else f"Without a teacher NODE(1) reaches {one.percent()} % ({one.interval()}){between}."
    return [first, _compared(difference(grid, "node100", "node1"), "A horizon of 100 in place of 1")]


def _compared(found: Spread | None, what: str, of: str = "it") -> str | None:
    if found is None:
        return None
    if found.sign == 0:
        return f"{what} makes no difference that can be told from none: {found.points()} points."
    return f"{what} {'raises' if found.sign > 0 else 'lowers'} {of} by {found.size()} points."


def _table2(grid: GridRecords) -> list[str | None]:
    found = {name: measured for name in grid.names("table2") if (measured := spread(grid, name)) is not None}
    if len(found) < 2:
        return []
    worst, best = (pick(found, key=lambda name: found[name].mean) for pick in (min, max))
    theirs = [grid.first(name).paper for name in found]
    papers = [percent for percent in theirs if percent is not None]
    beside = f"; the paper's lie between {min(papers):.2f} and {max(papers):.2f}" if papers else ""
    first = (
        f"The {len(found)} cells lie between {100 * found[worst].mean:.1f} % ({grid.first(worst).about}) and "
        f"{100 * found[best].mean:.1f} % ({grid.first(best).about}){beside}."
    )
    cells = [grid.first(name) for name in found]
    hot, cold = (pick(cell.temperature or 0.0 for cell in cells) for pick in (max, min))
    ends = {cell.name: (cell.temperature == hot) - (cell.temperature == cold) for cell in cells}
    count = sum(value == 1 for value in ends.values())
    both = hot > cold and count == sum(value == -1 for value in ends.values())
    gap = combined({name: sign / count for name, sign in ends.items() if sign}, grid) if both else None
    return [first, _compared(gap, f"A temperature of {hot:g} in place of {cold:g}, over all teachers,")]


def _table3(grid: GridRecords) -> list[str | None]:
    near, far = (spread(grid, "node500", attacked("pgd", eps)) for eps in (8, 20))
    if near is None or far is None:
        return []
    level = far.mean > 0.5 * near.mean and far.mean > 0.05
    first = f"NODE(500) keeps {near.percent()} % at 8/255 and {far.percent()} % at 20/255 under the paper's PGD."
    if level:
        return [first, "Accuracy that levels off at large radii without a defence is a sign of masked gradients: audit it."]
    return [first, "It falls as undefended models do; the paper's curve levels off at 20 %."]


def _figure1(grid: GridRecords) -> list[str | None]:
    names = [name for name in (grid.best, "node1", grid.best_teacher) if hits_of(grid, name, attacked("pgd", 8))]
    near = measured_radius(grid, names, _NEAR)
    parts = [f"{grid.first(name).about} keeps {_left(grid, name, near)} and {_left(grid, name, 8)} %" for name in names]
    gap = difference_under_attack(grid, "kd-node100", "kd-adam-scale")
    first = f"Under PGD at {near}/255 and 8/255, {joined(parts)}." if parts else None
    longer = "Over all radii and attacks a horizon of 100 in place of 1, both distilled by Adam,"
    return [first, _compared(gap, longer, "the mean accuracy")]


def _left(grid: GridRecords, name: str, eps_255: int) -> str:
    found = spread(grid, name, attacked("pgd", eps_255))
    return "–" if found is None else found.percent()


def _controls(grid: GridRecords) -> list[str | None]:
    gaps: dict[bool, dict[str, Spread]] = {True: {}, False: {}}  # of controls, and of teachers and the paper's own models
    for cell in (grid.first(name) for name in grid.names("controls")):
        gap = None if cell.compared is None else difference(grid, cell.name, cell.compared)
        if gap is not None:
            gaps[not (cell.name.startswith("resnet") or "figure1" in cell.parts)][cell.about] = gap
    found, others = gaps[True], [f"“{about}”, {gap.points()}" for about, gap in gaps[False].items()]
    if not found:
        return []
    up, down = (sum(gap.sign == sign for gap in found.values()) for sign in (1, -1))
    largest = max(found, key=lambda about: abs(found[about].mean))
    beside = f" Not counted: {joined(others)} points." if others else ""
    return [
        f"Of {len(found)} controls {up} are above what they are compared with, {down} below; the others cannot be told apart.",
        f"The largest difference is that of “{largest}”: {found[largest].points()} points.{beside}",
    ]


def _factors(grid: GridRecords) -> list[str | None]:
    rate = next((rate for rate in ("tuned", "scale", "paper") if factors(grid, rate)["gain"] is not None), "tuned")
    found = factors(grid, rate)
    gain, optimiser, taught = (found[name] for name in ("gain", "optimiser", "distillation"))
    first = None
    if gain and optimiser and taught:
        gives = f"At {rates(grid)[rate]}, the paper's comparison comes to {gain.points()} points"
        first = f"{gives}: {optimiser.points()} by the optimiser and {taught.points()} by distillation."
    return [first, _parts(grid.first(grid.best).about, *structure(grid).values())]


def _parts(best: str, stem: Spread | None, ode: Spread | None, learning: Spread | None) -> str | None:
    """Return what the parts of a cell do, each in words that fit its sign."""
    if stem is None or ode is None:
        return None
    side = "above" if stem.sign > 0 else "below"
    alone = f"{stem.size()} points {side} guessing" if stem.sign else f"not told from guessing, {stem.points()} points"
    learned = "" if learning is None else f"; a learned f in place of a random one {_does(learning)}"
    return f"In the paper's best cell, “{best}”, the stem alone is {alone}; the equation {_does(ode)}{learned}."


def _does(found: Spread) -> str:
    if found.sign == 0:
        return f"makes no difference that can be told from none, {found.points()}"
    return f"adds {found.size()}" if found.sign > 0 else f"takes {found.size()} away"


def _solvers(grid: GridRecords) -> list[str | None]:
    changes = {name: scorings(grid, grid.best, name) for name in ("finer", "other order", "no equation")}
    parts = {name: change_of(some) for name, some in changes.items() if some}
    if len(parts) < 3:
        return []
    return [
        f"A finer solver moves the accuracy of {grid.first(grid.best).about} by {parts['finer']} points, one of another order "
        f"by {parts['other order']}.",
        f"Without the equation it moves by {parts['no equation']}{_MEANT[sign_of_change(changes['no equation'])]}.",
    ]


def _horizons(grid: GridRecords) -> list[str | None]:
    names = [name for name in horizon_names(grid) if name.startswith("node")]
    if len(names) < 2:
        return []
    ends = [(grid.first(name).about, epoch_seconds(grid, name)) for name in (names[0], names[-1])]
    failed = sum(row["failed_images"] for name in names for run in grid.runs(name).values() for row in run.robustness)
    return [
        f"The fastest epoch takes {duration(ends[0][1])} with {ends[0][0]} and {duration(ends[1][1])} with {ends[1][0]}.",
        f"Of the attacked images, {failed} met the limit on steps or another failure of a solve; they count as not robust.",
    ]


def _claims(grid: GridRecords) -> list[str | None]:
    judged = judged_claims(grid)
    verdicts = [found.verdict.value for _, found in judged]
    counts = [f"{verdicts.count(name)} {name}" for name in ("supported", "contradicted", "undecided", "not measured")]
    against = [claim.sentence.rstrip(".") for claim, found in judged if found.verdict is Verdict.CONTRADICTED]
    return [
        _models(grid),
        f"Of {len(verdicts)} claims, {joined(counts)} here.",
        f"Contradicted: {'; '.join(against)}." if against else "None is contradicted.",
    ]


def _models(grid: GridRecords) -> str | None:
    """Return what kind of models the verdicts are about, so that none is taken for one about the paper's own."""
    names = grid.names("claims")
    kinds = {
        "students": [name for name in names if not name.startswith("resnet")],
        "residual networks": [name for name in names if name.startswith("resnet")],
    }
    ours = {kind: [100 * found.mean for name in some if (found := spread(grid, name))] for kind, some in kinds.items()}
    papers = [percent for some in kinds.values() for name in some if (percent := grid.first(name).paper) is not None]
    ranges = [f"{kind} of {min(some):.1f} to {max(some):.1f} %" for kind, some in ours.items() if some]
    if not ranges:
        return None
    of = f"The verdicts are about {joined(ranges)} clean accuracy"
    if any(field == "dataset" for field, _, _ in grid.changes):
        return f"{of} on {grid.data}: they show that judging works and say nothing of the paper, whose images are others."
    theirs = f"; the paper's models have {min(papers):.2f} to {max(papers):.2f} %" if papers else ""
    meant = ". Contradicted means by models like these, not at the paper's scale" if grid.changes else ""
    return f"{of}{theirs}{meant}."
