"""The checks, in the order in which they are worth reading."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from types import MappingProxyType

from nodestill.attacks.audit import gradients, outside, pipeline, planted, solver, strength
from nodestill.attacks.audit.case import Case
from nodestill.attacks.audit.verdict import CheckResult, Verdict, worst
from nodestill.errors import InputError, NodestillError

_ON_SURVIVORS = ("gradient-paths", "saturation", "attack-converged", "transfer", "black-box")  # they attack no one else

Check = Callable[[Case], CheckResult | None]  # None: the subject does not offer what the check needs

CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        "finite-logits": pipeline.finite,
        "deterministic": pipeline.deterministic,
        "batch-invariance": pipeline.batch_invariance,
        "logits": pipeline.logits_not_probabilities,
        "evaluation-mode": pipeline.evaluation_mode,
        "gradient-flow": pipeline.gradient_flow,
        "distinct-answers": pipeline.distinct_answers,
        "budget-use": pipeline.budget_use,
        "planted": planted.planted,
        "gradient-quality": gradients.quality,
        "gradient-convergence": gradients.convergence,
        "gradient-paths": gradients.alternate_paths,
        "saturation": gradients.other_losses,
        "cross-image-leak": gradients.leak,
        "attack-converged": strength.more_effort,
        "monotone": strength.monotone,
        "unbounded-radius": strength.unbounded,
        "class-collapse": strength.collapse,
        "worst-case": strength.worst_case,
        "transfer": outside.transfer,
        "black-box": outside.black_box,
        "horizon": solver.horizon,
        "latency": solver.latency,
    }
)


def audit(
    case: Case,
    checks: Sequence[str] = tuple(CHECKS),
    *,
    done: Collection[str] = (),
    on_check: Callable[[str], None] = lambda name: None,
) -> Iterator[CheckResult]:
    """Run checks one after the other and hand out each result as soon as it is there.

    Args:
        case: What `open_case` returned.
        checks: Names of the checks to run, in this order; see `CHECKS`.
        done: Names of those to skip, because their results are there already.
        on_check: Told the name of each check before it runs.

    Returns:
        The results; of a check that needs what the subject does not offer there is none.
    """
    for name in checks:
        if name in done:
            continue
        on_check(name)
        since = perf_counter()
        result = _result(name, case)
        if result is not None:
            yield replace(result, seconds=perf_counter() - since)


def _result(name: str, case: Case) -> CheckResult | None:
    try:
        if name in _ON_SURVIVORS and not bool(case.survivors.any()):
            raise InputError(f"no image was left robust at {case.eps_255}/255. Take a smaller radius.")
        return CHECKS[name](case)
    except NodestillError as error:  # a model without gradient, or one whose backward solve fails
        meaning = f"This check could not be made: {error}"
        return CheckResult(name, Verdict.INCONCLUSIVE, 0.0, 0.0, "not measured", meaning, 0)


def overall(results: Sequence[CheckResult]) -> Verdict:
    """Return the gravest verdict. If planted adversarial images are not found, nothing can pass: INCONCLUSIVE, if not FAIL."""
    return worst([result.verdict for result in results])
