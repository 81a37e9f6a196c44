"""The audit of a model: its curves under both protocols, the checks, and their rows, each written as soon as it is there.

Where only some checks are named, no curve is made: whoever asks for one check waits for that one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from nodestill.attacks import AttackName, Effort, Protocol
from nodestill.attacks.audit import CHECKS, TIERS, Case, CheckResult, Tier, Verdict, audit, open_case, overall
from nodestill.errors import AuditFailed, InputError, SolveError, TimeUp
from nodestill.experiments.alone import alone_in
from nodestill.experiments.attack_recipe import PAPERS_ATTACKS, RobustnessRecipe
from nodestill.experiments.attacked import Attacked
from nodestill.experiments.attacking import attack_by_the_paper, fitting_attacks
from nodestill.experiments.environment import environment
from nodestill.experiments.plain import from_plain, to_plain
from nodestill.experiments.processes import Watch
from nodestill.experiments.worst_case import attack_soundly

RADII = (0, 1, 2, 4, 8, 16)
_GRAVE = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.WARN)  # the gravest first


@dataclass(frozen=True)
class AuditRecipe:
    """What is asked of an audit.

    Args:
        tier: How hard to try.
        eps_255: Radius of the checks in 1/255; None for the one at which about half of the right images survive.
        radii_255: Of the curves.
        batch_size: Images attacked at a time.
        seed: Of random starts.
        checks: Names of the checks.
    """

    tier: Tier
    eps_255: int | None = None
    radii_255: tuple[int, ...] = RADII
    batch_size: int = 64
    seed: int = 0
    checks: tuple[str, ...] = tuple(CHECKS)

    def __post_init__(self) -> None:
        if not self.checks or len({*self.checks}) < len(self.checks):
            raise InputError(f"checks must name at least one, and each once, got {', '.join(self.checks) or 'none'}.")
        unknown = [name for name in self.checks if name not in CHECKS]
        if unknown:
            raise InputError(f"There is no check {unknown[0]!r}. There are: {', '.join(CHECKS)}.")

    def sweep(self, protocol: Protocol, attacks: tuple[AttackName, ...], eps_255: int) -> RobustnessRecipe:
        """Return what is asked of a protocol's curve; it has a point at the radius of the checks."""
        tier, radii = self.tier, tuple(sorted({*self.radii_255, eps_255}))
        effort = Effort(tier.steps, tier.apgd_steps, tier.targets, tier.minimum_norm_steps, tier.queries)
        return RobustnessRecipe(protocol, attacks, radii, tier.images, self.batch_size, self.seed, effort)


@dataclass(frozen=True)
class Audited:
    """What an audit found, and the fingerprints that mark its rows in the model's folder."""

    results: tuple[CheckResult, ...]
    verdict: Verdict
    eps_255: int  # radius of the checks
    audit_key: str
    paper_key: str
    sound_key: str


def asked_audit(tier: str, eps_255: int | None, checks: str | None, batch_size: int, seed: int) -> AuditRecipe:
    """Return the audit that a command line asks for.

    Args:
        tier: Name of a tier.
        eps_255: Radius of the checks in 1/255, or none.
        checks: Names of checks with commas, or none for all.
        batch_size: Images attacked at a time.
        seed: Of random starts.

    Raises:
        InputError: If there is no such tier or check, or a number is out of range.
    """
    if tier not in TIERS:
        raise InputError(f"--tier must be one of {', '.join(TIERS)}, got {tier!r}.")
    if eps_255 is not None and not 1 <= eps_255 <= 255:
        raise InputError(f"--eps must lie in 1 ... 255, in 1/255, got {eps_255}. 8 is usual.")
    if batch_size < 1:
        raise InputError(f"--batch-size must be at least 1, got {batch_size}. 64 is usual.")
    named = tuple(CHECKS) if checks is None else tuple(name.strip() for name in checks.split(",") if name.strip())
    return AuditRecipe(TIERS[tier], eps_255, batch_size=batch_size, seed=seed, checks=named)


def audit_model(attacked: Attacked, asked: AuditRecipe, watch: Watch) -> Audited:
    """Run the checks of a model, then, if all were asked for, make both curves; what is there already is not made again.

    Rows: `robustness.jsonl` and `sound.jsonl` (curves), `audit.jsonl` (checks); `audit.json` says which belong together.

    Args:
        attacked: The model with its images.
        asked: What to do.
        watch: Told of progress as (task, done, total, note).
    """
    key = attacked.key(asked, *attacked.relatives)
    results = _results(attacked.folder.rows("audit.jsonl", "recipe"), key)
    with alone_in(attacked.folder.path):
        radius = _checked(attacked, asked, key, results, watch)
    worst_case = asked.sweep(Protocol.SOUND, fitting_attacks(attacked), radius)
    by_the_paper = asked.sweep(Protocol.CHU2022, PAPERS_ATTACKS, radius)
    failed = _curves(attacked, worst_case, by_the_paper, watch) if set(asked.checks) == set(CHECKS) else ""
    ordered = tuple(sorted(results, key=lambda result: list(CHECKS).index(result.name)))
    keys = attacked.key(by_the_paper), attacked.key(worst_case)
    audited = Audited(ordered, overall(ordered), radius, key, *keys)
    attacked.folder.write("audit.json", _summary(attacked, asked, audited) | {"failed": failed})
    return audited


def _curves(attacked: Attacked, worst_case: RobustnessRecipe, by_the_paper: RobustnessRecipe, watch: Watch) -> str:
    """Make both curves, and return why one could not be made, if so: a check has said it too."""
    try:
        attack_by_the_paper(attacked, by_the_paper, watch)
        attack_soundly(attacked, worst_case, watch)
    except TimeUp:
        raise
    except (InputError, SolveError) as error:
        return str(error)
    return ""


def _summary(attacked: Attacked, asked: AuditRecipe, audited: Audited) -> dict[str, Any]:
    data = attacked.data if asked.tier.images is None else attacked.data.first(asked.tier.images)
    return {
        "title": attacked.title,
        "data": attacked.identity.provenance,
        "images": len(data),
        "class_names": data.class_names,
        "kin": list(attacked.kin),
        "asked": asked,
        "eps_255": audited.eps_255,
        "verdict": audited.verdict,
        "audit_key": audited.audit_key,
        "paper_key": audited.paper_key,
        "sound_key": audited.sound_key,
        "environment": environment(attacked.data.images.device),
        "schema": 1,
    }


def _checked(attacked: Attacked, asked: AuditRecipe, key: str, results: list[CheckResult], watch: Watch) -> int:
    """Run the checks that are missing, add their results, and return the radius they were made at."""
    rows = [row for row in attacked.folder.rows("audit.jsonl", "recipe") if row["recipe"] == key]
    known = {row["name"] for row in rows}
    total = len(asked.checks)
    if set(asked.checks) <= known:
        return int(rows[0]["eps_255"])
    task = f"audit {attacked.title}"
    watch(task, 0, total, "the native attack")
    case = _case(attacked, replace(asked, eps_255=int(rows[0]["eps_255"])) if rows else asked)
    names = list(asked.checks)

    def on_check(name: str) -> None:
        watch(task, names.index(name), total, name)

    made = {result.name: result for result in results}
    for result in audit(case, asked.checks, done=known, on_check=on_check):
        results.append(result)
        made[result.name] = result
        attacked.folder.append("audit.jsonl", _row(result, key, case, attacked))
    for name in names:
        if name not in made and name not in known:
            attacked.folder.append("audit.jsonl", _not_run(name, key, case, attacked))
    watch(task, total, total, "")
    return case.eps_255


def _case(attacked: Attacked, asked: AuditRecipe) -> Case:
    return open_case(
        attacked.subject,
        attacked.data,
        asked.tier,
        asked.batch_size,
        eps_255=asked.eps_255,
        seed=asked.seed,
        kin=attacked.kin,
    )


def _row(result: CheckResult, key: str, case: Case, attacked: Attacked) -> dict[str, Any]:
    return {**to_plain(result), "recipe": key, "eps_255": case.eps_255, "data": attacked.identity.provenance}


def _not_run(name: str, key: str, case: Case, attacked: Attacked) -> dict[str, Any]:
    return {"name": name, "verdict": None, "recipe": key, "eps_255": case.eps_255, "data": attacked.identity.provenance}


def _results(rows: Sequence[dict[str, Any]], key: str) -> list[CheckResult]:
    names = [each.name for each in fields(CheckResult)]
    plain = [{name: row[name] for name in names} for row in rows if row["recipe"] == key and row["verdict"] is not None]
    return [CheckResult(**{**one, "verdict": from_plain(Verdict, one["verdict"], "audit.jsonl")}) for one in plain]


def asked_verdict(fail_on: str | None) -> Verdict | None:
    """Return the verdict that a command line asks to fail on.

    Raises:
        InputError: If it is none of fail, inconclusive and warn.
    """
    if fail_on is None:
        return None
    known = {verdict.value: verdict for verdict in _GRAVE}
    if fail_on.lower() not in known:
        raise InputError(f"--fail-on must be one of {', '.join(known)}, got {fail_on!r}.")
    return known[fail_on.lower()]


def require_verdict(audited: Audited, limit: Verdict | None) -> None:
    """Raise `AuditFailed` if a verdict is as grave as asked for, or graver.

    Args:
        audited: What an audit found.
        limit: What `asked_verdict` returned; None for never.
    """
    grave = [] if limit is None else _GRAVE[: _GRAVE.index(limit) + 1]
    found = [result for result in audited.results if result.verdict in grave]
    if found:
        named = ", ".join(f"{result.name} ({result.verdict.value})" for result in found)
        raise AuditFailed(f"The audit found {named}. Read the report before any number of this model is used.")
