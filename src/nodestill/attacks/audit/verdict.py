"""What a check says, and how counts of images decide it.

A share of images is judged by its exact interval: FAIL if even its lower end is above the limit, PASS if its upper end is
not, else INCONCLUSIVE: these images are too few to tell. A PASS means that the attacks tried did not refute the number.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

from nodestill.intervals import exact_interval


class Verdict(Enum):
    """What a check says of a robustness number."""

    PASS = "pass"  # not refuted by what was tried
    WARN = "warn"  # something to know before the number is used
    FAIL = "fail"  # the number is not to be believed
    INCONCLUSIVE = "inconclusive"  # too few images to tell, or the check itself does not work here


@dataclass(frozen=True)
class CheckResult:
    """One check: what was measured, what the limit is, and what it means."""

    name: str
    verdict: Verdict
    measured: float
    limit: float
    unit: str
    meaning: str  # one or two sentences with the numbers in them
    images: int  # that the measurement rests on
    details: Mapping[str, object] = field(default_factory=dict)
    seconds: float = 0.0
    schema: int = 1


def of_share(hits: int, count: int, limit: float, *, warn: float | None = None) -> Verdict:
    """Judge a share of images that should be small.

    Args:
        hits: Images that speak against the number.
        count: All images of the check.
        limit: Share that is not tolerated, in [0, 1].
        warn: A smaller share that is worth a warning, if it is exceeded for certain.
    """
    if count == 0:
        return Verdict.INCONCLUSIVE
    low, high = exact_interval(hits, count)
    if low > limit:
        return Verdict.FAIL
    if warn is not None and low > warn:
        return Verdict.WARN
    return Verdict.INCONCLUSIVE if high > limit else Verdict.PASS


def share_result(
    name: str,
    hits: int,
    count: int,
    limit: float,
    what: str,
    *,
    warn: float | None = None,
    details: Mapping[str, object] = MappingProxyType({}),
) -> CheckResult:
    """Return the result of a check that counts images which speak against the number.

    Args:
        name: Of the check.
        hits: Images that speak against the number.
        count: All images of the check.
        limit: Share that is not tolerated, in [0, 1].
        what: What a hit is, as the end of "3 of 512 images ...".
        warn: A smaller share that is worth a warning.
        details: Further numbers.
    """
    verdict = of_share(hits, count, limit, warn=warn)
    low, high = exact_interval(hits, count) if count else (0.0, 1.0)
    said = f"{hits} of {count} images {what} ({low:.1%} to {high:.1%}; limit {limit:.1%})."
    if verdict is Verdict.INCONCLUSIVE:
        said += " More images are needed to tell: take a larger tier."
    if verdict is Verdict.PASS:
        said += " Not refuted by what was tried."
    return CheckResult(name, verdict, hits / max(count, 1), limit, "share of images", said, count, details)


def worst(verdicts: list[Verdict]) -> Verdict:
    """Return the gravest of some verdicts: FAIL, then INCONCLUSIVE, then WARN, then PASS."""
    gravity = [Verdict.PASS, Verdict.WARN, Verdict.INCONCLUSIVE, Verdict.FAIL]
    return max(verdicts, key=gravity.index, default=Verdict.INCONCLUSIVE)
