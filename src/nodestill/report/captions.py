"""What must stand below a robustness figure: the protocol in full, what went wrong, and what the numbers do not show."""

from collections.abc import Sequence
from typing import Any

from nodestill.experiments.records import RunRecords
from nodestill.report.audits import audit_cautions
from nodestill.report.formats import attack_name, count, joined, percent, radius
from nodestill.report.select import attacks_of, chance, chance_beaten, key_radius, label, provenance, row_at, rows_of

_RULES = {"chu2022": "the rules of Chu et al. 2022"}


def protocol_caption(runs: Sequence[RunRecords]) -> str:
    """Return what was attacked, how, and what is scored, as the rows say it."""
    attacked = [run for run in runs if run.robustness]
    row = attacked[0].robustness[-1]
    eps = key_radius(attacked)
    images = joined(sorted({count(row["images"]) for run in attacked for row in run.robustness}))
    attacks = joined([_attack_rule(attacked, attack, eps) for attack in attacks_of(attacked)])
    rules = f" ({_RULES[row['protocol']]})" if row["protocol"] in _RULES else ""
    return (
        f"Data: {provenance(attacked[0])}. Protocol {row['protocol']}{rules}: white box, L∞ radius ε, {attacks}. "
        f"Scored: {row['scored']}, on all {images} images, those that are wrong without an attack too. "
        "Bands: 95 % Wilson intervals. At ε = 0: clean accuracy of the same images."
    )


def _attack_rule(runs: Sequence[RunRecords], attack: str, eps: int | None) -> str:
    row = next((row for run in runs if (row := row_at(run, attack, eps)) is not None), None)
    row = row or next(row for run in runs for row in rows_of(run, attack))
    start = "from a uniform random start" if row["random_start"] else "from the image itself"
    momentum = "" if row["momentum"] is None else f" with momentum {row['momentum']:g}"
    steps = f"{row['steps']} steps of {radius(row['step_255'])} at ε = {radius(row['eps_255'])}"
    return f"{attack_name(attack)} {start}{momentum} ({steps})"


def cautions(runs: Sequence[RunRecords]) -> list[str]:
    """Return what a reader must know before believing a robustness number; no sentence if nothing was attacked."""
    if not attacks_of(runs):
        return []
    counted = [line for run in runs for line in (_worst(run, "failed_images"), _worst(run, "bad_gradient_images")) if line]
    return [*audit_cautions(runs), *_levelling(runs), *counted]


def _levelling(runs: Sequence[RunRecords]) -> list[str]:
    """Name the models that guess better than chance at the largest radius: an attack that works leaves none."""
    high = [(run, attack, row) for run in runs for attack in attacks_of([run]) if (row := chance_beaten(run, attack))]
    if not high:
        return []
    named = joined([_left(run, attack, row) for run, attack, row in high])
    return [
        f"Accuracy does not reach zero and stays above chance ({percent(chance(high[0][0]))}) at the largest radius: {named}. "
        "On a model that was not trained against attacks this points to the attack, not to robustness."
    ]


def _left(run: RunRecords, attack: str, row: dict[str, Any]) -> str:
    return f"{label(run)} under {attack_name(attack)} ({percent(row['accuracy'])} at {radius(row['eps_255'])})"


_TROUBLE = {
    "failed_images": "without finite logits (counted as wrong)",
    "bad_gradient_images": "with a zero or non-finite gradient at some step, where the attack stood still",
}


def _worst(run: RunRecords, field: str) -> str | None:
    row = max(run.robustness, key=lambda row: row[field], default=None)
    if row is None or not row[field]:
        return None
    at = f"{attack_name(row['attack'])} at {radius(row['eps_255'])}"
    return f"{label(run)}: up to {count(row[field])} of {count(row['images'])} images {_TROUBLE[field]}; largest count: {at}."
