"""What an experiment found, in plain sentences made from its rows, honest about uncertainty and about what was not checked."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from nodestill.experiments.records import RunRecords
from nodestill.report.audits import audit_sentence, audit_word
from nodestill.report.formats import attack_name, count, interval, joined, magnitude, percent, radius
from nodestill.report.select import attacks_of, by_role, key_radius, label, main_run, role_name, row_at, worst_at


class BigNumber(NamedTuple):
    """A number to see first: what it is, how sure it is, and whose."""

    value: str
    name: str
    detail: str
    role: str


def title(runs: Sequence[RunRecords]) -> str:
    """Return what the report is about."""
    main, teacher = main_run(runs), by_role(runs, "teacher")
    if main.role == "distilled" and teacher is not None:
        return f"{main.title}, taught by {teacher.title}"
    return label(main)


def big_numbers(runs: Sequence[RunRecords]) -> list[BigNumber]:
    """Return the three or four numbers that tell the story."""
    main, teacher = main_run(runs), by_role(runs, "teacher")
    shown = [_clean_number(main)]
    if teacher is not None and teacher is not main:
        shown.append(_clean_number(teacher))
    worst = worst_at(main, key_radius([main]))
    if worst is not None:
        shown.append(_attacked_number(main, worst))
    return [*shown, _cost_number(main)]


def _clean_number(run: RunRecords) -> BigNumber:
    clean = run.evaluation["clean"]
    sure = interval(clean["accuracy_low"], clean["accuracy_high"])
    return BigNumber(percent(clean["accuracy"]), f"{label(run)}, clean", f"95 % interval {sure}", run.role)


def _attacked_number(run: RunRecords, row: dict[str, Any]) -> BigNumber:
    name = f"{role_name(run)}, under {attack_name(row['attack'])} at {radius(row['eps_255'])}"
    sure = interval(row["wilson_low"], row["wilson_high"])
    return BigNumber(percent(row["accuracy"]), name, f"95 % interval {sure}; {audit_word(run)}", run.role)


def _cost_number(run: RunRecords) -> BigNumber:
    cost, measured = run.evaluation["cost"], run.evaluation.get("evaluations")
    parameters, macs = f"{magnitude(cost['parameters'])} parameters", f"{magnitude(cost['macs'])} MACs"
    if measured and measured["max"] > 0:
        mean = f"{measured['mean']:.1f}"
        return BigNumber(mean, f"evaluations of f per image, {role_name(run).lower()}", f"{macs}, {parameters}", run.role)
    return BigNumber(magnitude(cost["macs"]), f"MACs per image, {role_name(run).lower()}", parameters, run.role)


def sentences(runs: Sequence[RunRecords]) -> list[str]:
    """Return two to four sentences that say what was found."""
    main = main_run(runs)
    found = [_clean_sentence(main, runs), _comparison_sentence(main, runs), _attack_sentence(main, runs)]
    missing = [] if main.robustness else ["Not attacked yet."]
    return [sentence for sentence in (*found, *missing) if sentence is not None]


def _clean_sentence(main: RunRecords, runs: Sequence[RunRecords]) -> str:
    others = [f"{role_name(run).lower()} {_clean(run)}" for run in runs if run is not main]
    beside = f" ({', '.join(others)})" if others else ""
    return f"{label(main)}: {_clean(main)} clean{beside}."


def _clean(run: RunRecords) -> str:
    return percent(run.evaluation["clean"]["accuracy"])


_CONTROLS = {
    "undistilled": "the undistilled student",
    "stem-only": "the stem alone",
    "discrete-twin": "its discrete twin",
}


def _comparison_sentence(main: RunRecords, runs: Sequence[RunRecords]) -> str | None:
    """Return how the main student compares with its controls, by whether the intervals overlap."""
    controls = [run for run in runs if run is not main and run.role in _CONTROLS]
    if main.role != "distilled" or not controls:
        return None
    named: dict[str, list[str]] = {"above": [], "below": [], "level": []}
    for run in controls:
        named[compare(main, run)].append(_CONTROLS[run.role])
    clauses = [f"clearly {side} {joined(named[side])}" for side in ("above", "below") if named[side]]
    if named["level"]:
        clauses.append(f"within the uncertainty of {joined(named['level'])}")
    images = count(main.evaluation["clean"]["images"])
    return (
        f"The distilled student is {joined(clauses)}, by 95 % intervals of {images} test images. "
        "One training run each: the spread between seeds is not in these intervals."
    )


def compare(first: RunRecords, second: RunRecords) -> str:
    """Return whether the first clean accuracy is above or below the second, or level: their Wilson intervals overlap."""
    one, two = first.evaluation["clean"], second.evaluation["clean"]
    if one["accuracy_low"] > two["accuracy_high"]:
        return "above"
    return "below" if one["accuracy_high"] < two["accuracy_low"] else "level"


def _attack_sentence(main: RunRecords, runs: Sequence[RunRecords]) -> str | None:
    eps = key_radius([main])
    rows = [row for attack in attacks_of([main]) if (row := row_at(main, attack, eps)) is not None]
    if eps is None or not rows:
        return None
    left = [f"to {percent(row['accuracy'])} under {attack_name(row['attack'])}" for row in rows]
    whose = "the teacher's" if main.role == "teacher" else f"the {role_name(main).lower()} student's"
    beside = _teacher_beside(main, by_role(runs, "teacher"), rows)
    return f"At {radius(eps)}, {whose} accuracy falls {joined(left)}{beside}. {audit_sentence(main)}"


def _teacher_beside(main: RunRecords, teacher: RunRecords | None, rows: Sequence[dict[str, Any]]) -> str:
    if teacher is None or teacher is main:
        return ""
    same = [found for row in rows if (found := row_at(teacher, row["attack"], row["eps_255"])) is not None]
    return f" (the teacher's to {joined([percent(row['accuracy']) for row in same])})" if same else ""
