"""What only a model with a solver can get wrong: a horizon that is not a mechanism, and images that make it work forever."""

import torch
from jaxtyping import Int
from torch import Tensor

from nodestill.attacks.audit import limits
from nodestill.attacks.audit.case import Case
from nodestill.attacks.audit.verdict import CheckResult, Verdict, of_share
from nodestill.attacks.budget import project
from nodestill.attacks.gradient import loss_gradient
from nodestill.attacks.subject import predictions
from nodestill.data import Batch, eval_batches
from nodestill.errors import InputError
from nodestill.shapes import Images


def horizon(case: Case) -> CheckResult | None:
    """Is the model what it is with the horizon rescaled to one? y' = f on [0, T] is y' = T f on [0, 1]. (10)"""
    rescaled, tight = case.subject.horizon_rescaled, case.subject.gradient_paths.get("tight")
    if rescaled is None or tight is None:
        return None
    with torch.no_grad():
        batches = list(eval_batches(case.data, case.batch_size))
        other = torch.cat([rescaled(batch.images) for batch in batches])
        exact = torch.cat([tight(batch.images) for batch in batches])
    gap, error = _rms(other - case.logits), _rms(case.logits - exact)
    size = _rms(case.logits)
    if not size > 0:
        raise InputError("no image has finite logits to compare.")
    times = gap / max(error, 1e-6 * size)
    flips = int(((predictions(other) != case.clean) & case.right).sum())
    verdict = (
        Verdict.FAIL
        if times > limits.HORIZON or of_share(flips, len(other), case.limit(limits.STRONGER_PATH)) is Verdict.FAIL
        else Verdict.PASS
    )
    meaning = (
        f"With the horizon rescaled to 1 and f multiplied by it, logits differ by {gap / size:.2g} of their size, "
        f"{times:.2g} times the solver's own error, and {flips} right predictions change. "
        f"More than {limits.HORIZON:g} times would mean that the answer belongs to the solver."
    )
    details = {"solver error": error / size, "changed predictions": flips}
    return CheckResult("horizon", verdict, times, limits.HORIZON, "solver errors", meaning, len(other), details)


def _rms(x: Tensor) -> float:
    finite = x[torch.isfinite(x).all(1)].double()
    return float(finite.square().mean().sqrt()) if len(finite) else 0.0


def latency(case: Case) -> CheckResult | None:
    """How many evaluations of f can an image be made to cost? (11)"""
    subject = case.subject
    if subject.evaluations is None:
        return None
    clean = torch.cat([_evaluations(case, batch.images) for batch in eval_batches(case.data, case.batch_size)])
    slow = torch.cat([_evaluations(case, _slowed(case, batch)) for batch in eval_batches(case.data, case.batch_size)])
    usual, attacked = _high(clean), _high(slow)
    ratio, capped = attacked / max(usual, 1.0), subject.max_steps is not None
    verdict = Verdict.PASS if ratio <= limits.LATENCY_PASS else Verdict.WARN
    verdict = Verdict.FAIL if ratio > limits.LATENCY_FAIL or not capped else verdict
    meaning = (
        f"Evaluations of f per image, 99th percentile: {usual:.0f} clean, {attacked:.0f} under an attack on their number at "
        f"{case.eps_255}/255; most: {int(slow.max())}. " + ("" if capped else "The solver has no limit on its steps.")
    )
    details = {
        "clean mean": float(clean.double().mean()),
        "attacked mean": float(slow.double().mean()),
        "most": int(slow.max()),
    }
    return CheckResult("latency", verdict, ratio, limits.LATENCY_PASS, "times the clean", meaning.strip(), len(clean), details)


def _evaluations(case: Case, images: Images) -> Int[Tensor, " batch"]:
    with torch.no_grad():
        return case.subject.evaluations(images)


def _high(counts: Int[Tensor, " batch"]) -> float:
    return float(counts.double().quantile(0.99))


def _slowed(case: Case, batch: Batch) -> Images:
    """Climb the solver's own error estimate within the radius; without one, the cross-entropy."""
    effort, eps, images = case.subject.effort, case.eps_255 / 255, batch.images
    if effort is None:
        return case.adversarial[batch.index]
    for _ in range(case.budget.steps):
        gradient = loss_gradient(effort, images, batch.labels, lambda error, labels: error[:, 0]).gradient
        images = project(images + case.budget.step * gradient.sign(), batch.images, eps)
    return images
