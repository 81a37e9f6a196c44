"""What the audits of an experiment's models say, in the words that stand beside its robustness numbers."""

from collections.abc import Sequence

from nodestill.experiments.records import AuditRecords, RunRecords
from nodestill.report.formats import count, joined, percent, radius
from nodestill.report.select import label

_GRAVE = ("fail", "inconclusive", "warn")  # the gravest first

NOT_AUDITED = (
    "These attacks are weak by construction: few steps of one size, one start, and only the last iterate counts. "
    "They bound from above what robustness a model can have; they cannot show that it has any."
)


def audit_word(run: RunRecords) -> str:
    """Return an audit in two words, for beside a number."""
    return "not audited" if run.audit is None else f"audit: {run.audit.summary['verdict']}"


def audit_sentence(run: RunRecords) -> str:
    """Return what stands behind the sentence on an attacked model."""
    if run.audit is None:
        return "No audit was run: read these as upper bounds."
    if run.audit.summary["verdict"] == "pass":
        return "Its audit found nothing against these numbers."
    return f"Its audit says {_verdict(run.audit)}: do not read these as robustness."


def audit_cautions(runs: Sequence[RunRecords]) -> list[str]:
    """Return a line for the attacked models that were not audited, and one for each that was."""
    attacked = [run for run in runs if run.robustness]
    without = [label(run) for run in attacked if run.audit is None]
    names = "" if len(without) == len(attacked) else f": {joined(without)}"
    lines = [f"Not audited{names}. {NOT_AUDITED}"] if without else []
    return lines + [_audit_line(run, run.audit) for run in attacked if run.audit is not None]


def _audit_line(run: RunRecords, audit: AuditRecords) -> str:
    summary = audit.summary
    worst = [f"{percent(row['robust_accuracy'])} at {radius(row['eps_255'])}" for row in audit.worst if row["eps_255"]]
    curve = f" Robust in the worst case over our attacks: {joined(worst)}." if worst else ""
    images = f"{count(summary['images'])} images, checks at {radius(summary['eps_255'])}"
    return f"{label(run)}: audited (tier {summary['asked']['tier']['name']}, {images}): {_verdict(audit)}.{curve}"


def _verdict(audit: AuditRecords) -> str:
    """Return the verdict in capitals with the checks that gave it."""
    verdict = audit.summary["verdict"]
    named = [row["name"] for row in audit.checks if row["verdict"] == verdict]
    return verdict.upper() + (f" ({joined(named)})" if verdict in _GRAVE else "")
