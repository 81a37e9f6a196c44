"""Is the gradient that the native attack follows the gradient of the model, and would another one do better?"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nodestill.attacks.audit import limits
from nodestill.attacks.audit.case import Case
from nodestill.attacks.audit.verdict import CheckResult, Verdict, share_result
from nodestill.attacks.gradient import loss_gradient
from nodestill.attacks.losses import cross_entropy, dlr, margin
from nodestill.attacks.subject import LogitsFn
from nodestill.data import Batch
from nodestill.errors import InputError, NodestillError
from nodestill.shapes import Images, Labels, Logits

_STEP = 1 / 255
_LEAK_BATCH, _LEAK_BATCHES = 8, 4
_NO_OTHER_WAY = ("autograd", "direct")  # the native gradient itself, or equal to `recompute` up to rounding


def alternate_paths(case: Case) -> CheckResult | None:
    """Does PGD along other ways to the same function fool images that the native gradient does not? (1)"""
    paths = {name: path for name, path in case.subject.gradient_paths.items() if name not in _NO_OTHER_WAY}
    counts: dict[str, int | str] = {name: _fooled_along(case, path) for name, path in paths.items()}
    fooled = {name: count for name, count in counts.items() if isinstance(count, int)}
    if not paths:
        return None
    if not fooled:
        raise InputError(f"no other path of the gradient could be gone: {next(iter(counts.values()))}")
    what = f"fall to PGD along another path of the gradient, not along the native one; the strongest: {_largest(fooled)}"
    hits, warn, limit = max(fooled.values()), limits.STRONGER_PATH_WARN, case.limit(limits.STRONGER_PATH)
    return share_result("gradient-paths", hits, len(case.data), limit, what, warn=warn, details=counts)


def _fooled_along(case: Case, path: LogitsFn) -> int | str:
    """Return how many survivors fall along a path, or why it cannot be gone: a gradient may be refused on its way back."""
    try:
        return int(case.fooled_along(lambda images: path, case.budget).sum())
    except NodestillError as error:
        return f"failed: {error}"


def _largest(counts: dict[str, int]) -> str:
    name = max(counts, key=lambda key: counts[key])
    return f"{name} ({counts[name]})"


def quality(case: Case) -> CheckResult:
    """Is the native gradient that of the very computation, in float64, and does a step along it gain what it promises? (2a)"""
    cosines, signs, ratios = [], [], []
    for batch in case.batches():
        for images in (batch.images, case.adversarial[batch.index]):
            here = batch._replace(images=images)
            gradient = loss_gradient(case.subject.logits, images, batch.labels).gradient
            ratios.append(_realised(case.subject.logits, here, gradient))
            if case.subject.reference is not None:
                cosine, agreement = _agreement(case.subject.reference(images), here, gradient)
                cosines.append(cosine)
                signs.append(agreement)
    ratio = float(torch.cat(ratios).nanmedian().nan_to_num(0))  # no gradient promises anything: it gains nothing
    if not cosines:
        return _by_ratio_alone(ratio, len(case.data))
    cosine, sign = torch.cat(cosines).nan_to_num(0), float(torch.cat(signs).nan_to_num(0).median())
    median, low = float(cosine.median()), float(cosine.quantile(0.05))
    good = median >= limits.COSINE_PASS and low >= limits.COSINE_LOW_PASS and ratio >= limits.REALISED_PASS
    failed = median < limits.COSINE_FAIL or ratio < limits.REALISED_FAIL
    verdict = Verdict.PASS if good else (Verdict.FAIL if failed else Verdict.WARN)
    meaning = (
        f"Against the float64 gradient of the same steps: cosine {median:.3f} in the median, {low:.3f} at the 5th percentile, "
        f"{sign:.1%} of the signs alike. A step of 1/255 along the gradient gains {ratio:.2f} of what it promises."
    )
    details = {"cosine_median": median, "cosine_p5": low, "sign_agreement": sign, "realised": ratio}
    return CheckResult("gradient-quality", verdict, median, limits.COSINE_PASS, "cosine", meaning, len(case.data), details)


def _by_ratio_alone(ratio: float, images: int) -> CheckResult:
    verdict = Verdict.PASS if ratio >= limits.REALISED_PASS else Verdict.WARN
    verdict = Verdict.FAIL if ratio < limits.REALISED_FAIL else verdict
    meaning = (
        f"A step of 1/255 along the gradient gains {ratio:.2f} of what it promises. "
        "The subject gives no float64 reference, so direction was not compared."
    )
    return CheckResult("gradient-quality", verdict, ratio, limits.REALISED_PASS, "realised gain", meaning, images)


def convergence(case: Case) -> CheckResult | None:
    """Does the native gradient agree with one at a tight tolerance? Only a warning: an honest model may be far off. (2b)"""
    tight = case.subject.gradient_paths.get("tight")
    if tight is None:
        return None
    found = [
        _agreement(tight, batch, loss_gradient(case.subject.logits, batch.images, batch.labels).gradient)[0]
        for batch in case.batches()
    ]
    cosine = float(torch.cat(found).nan_to_num(0).median())
    verdict = Verdict.PASS if cosine >= limits.CONVERGED else Verdict.WARN
    meaning = (
        f"The cosine between the native gradient and that of a finer solve is {cosine:.3f} in the median. Low is no defect "
        "by itself: check gradient-paths tells whether the finer gradient attacks better."
    )
    return CheckResult("gradient-convergence", verdict, cosine, limits.CONVERGED, "cosine", meaning, len(case.data))


def _agreement(path: LogitsFn, batch: Batch, gradient: Images) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Return cosine and share of equal signs of a gradient and that of another path, per image; NaN where either is zero."""
    other = loss_gradient(path, batch.images, batch.labels).gradient.double().flatten(1)
    own = gradient.double().flatten(1)
    size = own.norm(dim=1) * other.norm(dim=1)
    cosine = (own * other).sum(1) / torch.where(size > 0, size, torch.nan)
    return cosine, (own.sign() == other.sign()).double().mean(1)


def _realised(logits_fn: LogitsFn, batch: Batch, gradient: Images) -> Float[Tensor, " batch"]:
    """Return what a step of 1/255 along the sign gains, over what the gradient promises; NaN where it promises nothing."""
    moved = (batch.images + _STEP * gradient.sign()).clamp(0, 1)
    promised = ((moved - batch.images) * gradient).flatten(1).double().sum(1)
    with torch.no_grad():
        gained = cross_entropy(logits_fn(moved), batch.labels) - cross_entropy(logits_fn(batch.images), batch.labels)
    return gained.double() / torch.where(promised > 0, promised, torch.nan)


def other_losses(case: Case) -> CheckResult:
    """Do survivors have a usable gradient, and do losses that cannot saturate fool any of them? (8)"""
    dead = torch.zeros_like(case.fooled)
    for batch in case.batches(case.survivors):
        dead[batch.index] = _dead(loss_gradient(case.subject.logits, batch.images, batch.labels).gradient)
    dead &= case.survivors
    same = lambda images: case.subject.logits  # noqa: E731
    losses = {"margin": margin, "float64 cross-entropy of scaled logits": _scaled(case)}
    if case.logits.shape[1] >= 3:
        losses["difference of logits ratio"] = dlr
    fooled = {name: case.fooled_along(same, case.budget, loss=loss) for name, loss in losses.items()}
    counts = {name: int(found.sum()) for name, found in fooled.items()} | {"dead gradients": int(dead.sum())}
    strongest = _largest({name: counts[name] for name in losses})
    what = (
        f"survive only because the cross-entropy is flat: {int(dead.sum())} have a dead gradient, the strongest other loss is "
        f"{strongest}"
    )
    limit = case.limit(limits.STRONGER_LOSS)
    return share_result("saturation", max(counts.values()), len(case.data), limit, what, details=counts)


def _dead(gradient: Images) -> Bool[Tensor, " batch"]:
    """Return which gradients are zero or denormal."""
    return gradient.abs().flatten(1).amax(1) < torch.finfo(torch.float32).tiny


def _scaled(case: Case) -> Callable[[Logits, Labels], Float[Tensor, " batch"]]:
    """Return the cross-entropy of logits divided so that the median margin of the right images is one."""
    usable = case.right
    size = margin(case.logits[usable], case.data.labels[usable]).abs().median() if bool(usable.any()) else torch.tensor(1.0)
    return lambda logits, labels: cross_entropy(logits.double() / size.double().clamp(min=1e-12), labels)


def leak(case: Case) -> CheckResult:
    """Does the loss of other images in a batch reach an image's gradient? (8)"""
    ratios = []
    for number in range(_LEAK_BATCHES):
        first = number * _LEAK_BATCH
        if first < len(case.data) and len(case.data) > 1:
            places = torch.arange(first, min(first + _LEAK_BATCH, len(case.data)), device=case.data.labels.device)
            ratios.append(_leaked(case, case.data.at(places)))
    leaked = torch.cat(ratios) if ratios else torch.zeros(0)
    hits = int((leaked > limits.LEAK).sum())
    worst = float(leaked.max()) if len(leaked) else 0.0
    verdict = Verdict.FAIL if hits > limits.LEAK * len(leaked) else Verdict.PASS
    meaning = (
        f"In {hits} of {len(leaked)} images the gradient of the other images' losses is more than {limits.LEAK:.0%} of its "
        f"own; at most {worst:.2g} of it. A sign attack follows a leak at full size where an image's own loss is flat."
    )
    return CheckResult("cross-image-leak", verdict, worst, limits.LEAK, "relative", meaning, len(leaked))


def _leaked(case: Case, batch: Batch) -> Float[Tensor, " batch"]:
    """Return, per image, the size of the gradient of the others' losses over that of its own."""
    found = []
    for place in range(len(batch.labels)):
        own, others = _gradients(case.subject.logits, batch, place)
        found.append(others.abs().sum() / own.abs().sum().clamp(min=torch.finfo(torch.float32).tiny))
    return torch.stack(found).double()


def _gradients(logits_fn: LogitsFn, batch: Batch, place: int) -> tuple[Tensor, Tensor]:
    """Return the gradients, with respect to one image, of its own loss and of the sum of all other losses."""
    mine = torch.arange(len(batch.labels), device=batch.labels.device) == place
    own = loss_gradient(logits_fn, batch.images, batch.labels, lambda z, y: cross_entropy(z, y) * mine)
    others = loss_gradient(logits_fn, batch.images, batch.labels, lambda z, y: cross_entropy(z, y) * ~mine)
    return own.gradient[place], others.gradient[place]
