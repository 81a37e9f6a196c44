"""Is the model what an attack presumes: finite, deterministic, each image by itself, logits, evaluation mode, differentiable?

A violation of one of these makes any robustness number meaningless, so most of them fail outright, without statistics.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nodestill.attacks.audit import limits
from nodestill.attacks.audit.case import Case
from nodestill.attacks.audit.verdict import CheckResult, Verdict, of_share, share_result
from nodestill.attacks.gradient import loss_gradient
from nodestill.attacks.random_start import keyed_uniform
from nodestill.attacks.subject import predictions
from nodestill.data import eval_batches
from nodestill.errors import InputError
from nodestill.shapes import Images

_ALONE = 32  # images classified one by one


def finite(case: Case) -> CheckResult:
    """Are all logits numbers: on clean images, on adversarial ones, on noise?"""
    seen = torch.cat([case.logits, _logits(case, case.adversarial), _logits(case, _noise_images(case))])
    bad = int((~torch.isfinite(seen)).any(1).sum())
    meaning = (
        f"{bad} of {len(seen)} clean, adversarial and random images have logits that are not numbers. An image that cannot be "
        "computed is not robust; where argmax takes NaN for a class, it looks so."
    )
    return CheckResult("finite-logits", _hard(bad == 0), float(bad), 0.0, "images", meaning, len(seen))


def deterministic(case: Case) -> CheckResult:
    """Do two passes over the same batches give the same logits?"""
    again = _logits(case, _clean_images(case))
    gap, flips = _largest(_gaps(case.logits, again)), int(_flips(case.logits, again).sum())
    verdict = Verdict.PASS if gap <= limits.DETERMINISTIC else Verdict.WARN
    verdict = Verdict.FAIL if gap > limits.NONDETERMINISTIC or flips else verdict
    meaning = (
        f"Two passes over the same batches differ by {gap:.2g} of the logits' size and in {flips} predictions. "
        "Attacks on a random model need averages over its randomness; these do not take them."
    )
    return CheckResult("deterministic", verdict, gap, limits.NONDETERMINISTIC, "relative", meaning, len(again))


def batch_invariance(case: Case) -> CheckResult:
    """Do an image's logits depend on the images beside it?"""
    some = case.data.at(torch.arange(min(_ALONE, len(case.data)), device=case.data.labels.device))
    alone = torch.cat([_logits_of(case, image[None]) for image in some.images])
    order = torch.arange(len(case.data), device=case.data.labels.device).flip(0)
    turned = torch.cat([_logits_of(case, case.data.at(part).images) for part in order.split(case.batch_size)]).flip(0)
    gaps, flips = _gaps(case.logits, turned), _flips(case.logits, turned)
    few = len(alone)
    gaps[:few] = torch.maximum(gaps[:few], _gaps(case.logits[:few], alone))
    flips[:few] |= _flips(case.logits[:few], alone)
    coupled = int(((gaps > limits.BATCH_COUPLING) | flips).sum())
    serious = of_share(coupled, len(gaps), case.limit(limits.COUPLED)) is Verdict.FAIL and case.subject.batch_independent
    verdict = Verdict.FAIL if serious else (Verdict.WARN if coupled else Verdict.PASS)
    meaning = (
        f"Alone or in another batch, {coupled} of {len(gaps)} images change by more than {limits.BATCH_COUPLING:g} of their "
        f"logits' size, or in class; at most by {_largest(gaps):.2g}. "
        + (
            "Success then depends on the batch: steps controlled per image, or whole batches in attack and score, cure it."
            if coupled
            else "Each image is classified by itself."
        )
    )
    return CheckResult(
        "batch-invariance", verdict, coupled / len(gaps), case.limit(limits.COUPLED), "share of images", meaning, len(gaps)
    )


def _largest(gaps: Float[Tensor, " count"]) -> float:
    return float(gaps.max().clamp(max=1e9))  # JSON knows no infinity


def logits_not_probabilities(case: Case) -> CheckResult:
    """Are the outputs logits? Probabilities flatten every loss that takes a softmax again."""
    values = case.logits.double()
    sums = bool((values.sum(1) - 1).abs().max() < 1e-5)
    probabilities = sums and bool((values >= 0).all()) and bool((values <= 1).all())
    meaning = (
        "The outputs lie in [0, 1] and sum to one: they are probabilities, and a loss that takes their softmax is nearly flat. "
        "Return the logits." if probabilities else "The outputs are no probabilities."
    )  # fmt: skip
    return CheckResult("logits", _hard(not probabilities), float(probabilities), 0.0, "is a softmax", meaning, len(values))


def evaluation_mode(case: Case) -> CheckResult | None:
    """Is the model in evaluation mode? None if the subject does not show its modules."""
    if case.subject.module is None:
        return None
    left = [name or "the model" for name, module in case.subject.module.named_modules() if module.training]
    meaning = f"{len(left)} modules are in training mode{': ' + ', '.join(left[:3]) if left else ''}. Call model.eval()."
    return CheckResult("evaluation-mode", _hard(not left), float(len(left)), 0.0, "modules", meaning, 0)


def gradient_flow(case: Case) -> CheckResult:
    """Does a gradient reach the images at all?"""
    try:
        bad = torch.cat([loss_gradient(case.subject.logits, b.images, b.labels).bad for b in case.batches()])
    except InputError as error:
        return CheckResult(
            "gradient-flow", Verdict.FAIL, 1.0, case.limit(limits.DEAD_GRADIENT), "share of images", str(error), len(case.data)
        )
    what = "have a zero or non-finite gradient at the clean image, where no attack can start"
    return share_result("gradient-flow", int(bad.sum()), len(bad), case.limit(limits.DEAD_GRADIENT), what)


def distinct_answers(case: Case) -> CheckResult:
    """Do different images get different logits? A fallback that answers with a constant does not."""
    seen = torch.cat([case.logits, _logits(case, case.adversarial), _logits(case, _noise_images(case))])
    pictures = torch.cat([_clean_images(case), case.adversarial, _noise_images(case)]).flatten(1)
    _, answer, counts = seen.unique(dim=0, return_inverse=True, return_counts=True)
    shared = counts[answer] > 1
    twins = int(shared.sum()) - _repeated(pictures[shared])
    what = "have, bit for bit, the logits of another image: a constant answer, not a classification"
    return share_result("distinct-answers", max(twins, 0), len(seen), case.limit(limits.SAME_ANSWER), what)


def budget_use(case: Case) -> CheckResult:
    """Does the native attack keep to its radius, and use it?"""
    clean, radius = _clean_images(case), case.eps_255 / 255
    moved = (case.adversarial - clean).flatten(1).abs()
    on_face = (moved >= 0.99 * radius) | (case.adversarial.flatten(1) <= 0) | (case.adversarial.flatten(1) >= 1)
    held = case.survivors  # an image that fell may have stopped short
    reach = float(on_face.double().mean(1)[held].median()) if bool(held.any()) else 1.0
    furthest = float(moved.max()) / radius
    within = furthest <= 1 + 1e-3 and bool(((case.adversarial >= 0) & (case.adversarial <= 1)).all())
    verdict = Verdict.FAIL if not within or reach < limits.REACH else Verdict.PASS
    meaning = (
        f"In the median survivor {reach:.0%} of the pixels end on a face of the box of {case.eps_255}/255; none goes further "
        f"than {furthest:.0%} of the radius. Fewer than {limits.REACH:.0%} mean too few steps, or a radius in normalised units."
    )
    return CheckResult("budget-use", verdict, reach, limits.REACH, "of the pixels", meaning, int(held.sum()))


def _repeated(pictures: Float[Tensor, "count pixels"]) -> int:
    """Return how many of some images are pixel for pixel another of them: those may have the same logits."""
    if not len(pictures):
        return 0
    _, which, counts = pictures.unique(dim=0, return_inverse=True, return_counts=True)
    return int((counts[which] > 1).sum())


def _hard(holds: bool) -> Verdict:
    return Verdict.PASS if holds else Verdict.FAIL


def _clean_images(case: Case) -> Images:
    return torch.cat([batch.images for batch in eval_batches(case.data, case.batch_size)])


def _noise_images(case: Case) -> Images:
    """Return one random picture for every image, uniform in [0, 1]."""
    keys = torch.arange(len(case.data), device=case.data.labels.device)
    clean = case.data.images
    return (keyed_uniform(keys, case.seed, 0, clean[0].numel()).view(clean.shape) + 1) / 2


def _logits(case: Case, images: Images) -> Float[Tensor, "count classes"]:
    return torch.cat([_logits_of(case, part) for part in images.split(case.batch_size)])


def _logits_of(case: Case, images: Images) -> Float[Tensor, "count classes"]:
    with torch.no_grad():
        return case.subject.logits(images)


def _gaps(first: Float[Tensor, "count classes"], second: Float[Tensor, "count classes"]) -> Float[Tensor, " count"]:
    """Return each image's largest difference relative to the size of its logits; infinite where one of them is not finite."""
    usable, other = torch.isfinite(first).all(1), torch.isfinite(second).all(1)
    gaps = (first - second).abs().amax(1) / first.abs().amax(1).clamp(min=1e-12)
    gaps = torch.where(usable & other, gaps, torch.inf)
    return torch.where(~usable & ~other, 0.0, gaps)  # not finite in both: another check says so


def _flips(first: Float[Tensor, "count classes"], second: Float[Tensor, "count classes"]) -> Bool[Tensor, " count"]:
    """Return which images are predicted otherwise; one that has a prediction only once is."""
    return predictions(first) != predictions(second)
