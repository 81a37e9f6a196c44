"""Checks that decide whether a robustness number may be believed, for any model."""

from nodestill.attacks.audit.case import Case, Tier, open_case
from nodestill.attacks.audit.limits import FULL, QUICK, STANDARD, TIERS
from nodestill.attacks.audit.run import CHECKS, audit, overall
from nodestill.attacks.audit.verdict import CheckResult, Verdict

__all__ = [
    "CHECKS",
    "FULL",
    "QUICK",
    "STANDARD",
    "TIERS",
    "Case",
    "CheckResult",
    "Tier",
    "Verdict",
    "audit",
    "open_case",
    "overall",
]
