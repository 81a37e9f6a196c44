"""Finding a number among the records of an experiment: which run, which row. Nothing is computed here that no row says."""

import re
from collections.abc import Sequence
from typing import Any

from nodestill.experiments.records import RunRecords

_ROLES = {
    "teacher": "Teacher",
    "distilled": "Distilled",
    "undistilled": "Undistilled",
    "stem-only": "Stem only",
    "discrete-twin": "Discrete twin",
}
_NAMED_BY_ROLE = ("stem-only", "discrete-twin")
_USUAL_RADII = (4, 8, 16)  # what the literature quotes of natural images, where a sweep ends at 20 or before
_USUAL_LAST = 20


def role_name(run: RunRecords) -> str:
    """Return what a model is in its experiment, as a word for print."""
    return _ROLES.get(run.role, run.role)


def label(run: RunRecords) -> str:
    """Return role and model, where the model's name says more than its role."""
    return role_name(run) if run.role in _NAMED_BY_ROLE else f"{role_name(run)} {run.title}"


def by_role(runs: Sequence[RunRecords], role: str) -> RunRecords | None:
    """Return the run of a role, if it is there."""
    return next((run for run in runs if run.role == role), None)


def main_run(runs: Sequence[RunRecords]) -> RunRecords:
    """Return the run that the report is about: the distilled student, or the nearest to it that is finished."""
    found = (by_role(runs, role) for role in ("distilled", "undistilled", "discrete-twin", "stem-only", "teacher"))
    return next((run for run in found if run is not None), runs[0])


def mean_evaluations(run: RunRecords) -> float | None:
    """Return the calls of f for a clean image, mean; none of a residual network."""
    measured = run.evaluation.get("evaluations")
    return measured["mean"] if measured else None


def attacks_of(runs: Sequence[RunRecords]) -> tuple[str, ...]:
    """Return the attacks that were run, in the order in which they were."""
    return tuple(dict.fromkeys(row["attack"] for run in runs for row in run.robustness))


def radii_of(runs: Sequence[RunRecords]) -> tuple[int, ...]:
    """Return the radii above zero that were measured, increasing."""
    return tuple(sorted({row["eps_255"] for run in runs for row in run.robustness} - {0}))


def table_radii(runs: Sequence[RunRecords]) -> tuple[int, ...]:
    """Return at most three measured radii for a table: the usual ones, or, of a wider sweep, a quarter, half and all of it."""
    measured = radii_of(runs)
    return tuple(dict.fromkeys(_nearest(measured, wanted) for wanted in _wanted(measured))) if measured else ()


def key_radius(runs: Sequence[RunRecords]) -> int | None:
    """Return the one measured radius to quote first: nearest to 8, or to the middle of a wider sweep."""
    measured = radii_of(runs)
    return _nearest(measured, _wanted(measured)[1]) if measured else None


def _wanted(measured: Sequence[int]) -> tuple[int, int, int]:
    last = measured[-1]
    return _USUAL_RADII if last <= _USUAL_LAST else (last // 4, last // 2, last)


def _nearest(measured: Sequence[int], wanted: int) -> int:
    return min(measured, key=lambda eps: (abs(eps - wanted), eps))


def rows_of(run: RunRecords, attack: str) -> list[dict[str, Any]]:
    """Return the rows of one attack by increasing radius."""
    return sorted((row for row in run.robustness if row["attack"] == attack), key=lambda row: row["eps_255"])


def row_at(run: RunRecords, attack: str, eps_255: int | None) -> dict[str, Any] | None:
    """Return the row of an attack at a radius, if it was measured."""
    return next((row for row in rows_of(run, attack) if row["eps_255"] == eps_255), None)


def chance(run: RunRecords) -> float:
    """Return the accuracy of guessing."""
    return 1 / len(run.recipe["class_names"])


def training_seconds(run: RunRecords) -> float | int | None:
    """Return how long a model was trained, all epochs together."""
    return sum(row["seconds"] for row in run.training) if run.training else None


def provenance(run: RunRecords) -> str:
    """Return which data it really was."""
    return str(run.recipe.get("provenance") or f"{run.recipe['dataset']}, unverified")


def fingerprint_of(run: RunRecords) -> str | None:
    """Return the fingerprint of what a run depends on: the last part of its folder's name."""
    found = re.search(r"-([0-9a-f]{8})$", run.path.name)
    return found.group(1) if found else None


def chance_beaten(run: RunRecords, attack: str) -> dict[str, Any] | None:
    """Return the row of the largest radius if accuracy is still above guessing there."""
    rows = rows_of(run, attack)
    last = rows[-1] if rows and rows[-1]["eps_255"] > 0 else None
    return last if last and last["accuracy"] > chance(run) else None


def worst_at(run: RunRecords, eps_255: int | None) -> dict[str, Any] | None:
    """Return the row of the attack that leaves least at a radius, if any was run there."""
    return min((row for row in run.robustness if row["eps_255"] == eps_255), key=lambda row: row["accuracy"], default=None)
