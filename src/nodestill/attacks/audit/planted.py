"""Does the attack find adversarial images that are known to exist?

For every image a point at a corner of its box is drawn, and a readout of the model's logits is fixed that tells the two apart:
0 at the image, 1 at the corner. By construction an adversarial image exists; an attack that works on this model must find one.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from nodestill.attacks.audit import limits
from nodestill.attacks.audit.case import Case
from nodestill.attacks.audit.verdict import CheckResult, Verdict
from nodestill.attacks.budget import project
from nodestill.attacks.random_start import keyed_uniform
from nodestill.attacks.subject import FAILED, LogitsFn
from nodestill.data import Batch, eval_batches
from nodestill.shapes import Images, Logits

_TOO_FEW = f"These are fewer than {limits.PLANTABLE:.0%} of the images: too few to say that it works on this model."
_DOES_NOT_WORK = "It does not work on this model, so no number of it may be believed."
_THRESHOLD = 0.9  # of the way from the image to the planted one


def planted(case: Case) -> CheckResult:
    """Does the native attack find planted adversarial images? If not, no check that relies on it means anything. (12)

    Source:
        Zimmermann, Brendel, Tramèr and Carlini 2022, "Increasing Confidence in Adversarial Robustness Evaluations". Differs:
        the readout is linear in the logits, and the planted image a random corner of the box.
    """
    found = count = 0
    for batch in eval_batches(case.data, case.batch_size):
        readout, usable = _readout(case, batch)
        result = case.attack(readout, batch._replace(labels=torch.zeros_like(batch.labels)), case.budget, case.seed)
        found += int((result.fooled & (result.predictions != FAILED) & usable).sum())
        count += int(usable.sum())
    share = found / max(count, 1)
    enough = count >= limits.PLANTABLE * len(case.data)
    verdict = Verdict.PASS if enough and share >= limits.PLANTED else Verdict.INCONCLUSIVE
    doubt = "" if verdict is Verdict.PASS else _DOES_NOT_WORK if count and share < limits.PLANTED else _TOO_FEW
    meaning = (
        f"Of {len(case.data)} images {count} can be told from a corner of their box. "
        f"The attack finds {found} of {count} planted adversarial images ({share:.1%}; asked for: {limits.PLANTED:.0%}). "
        + doubt
    )
    return CheckResult("planted", verdict, share, limits.PLANTED, "of planted images", meaning.strip(), count)


def _readout(case: Case, batch: Batch) -> tuple[LogitsFn, Tensor]:
    """Return two logits that change sides on the way to a corner of the box, and for which images there is such a way."""
    at_image, at_corner = _logits(case, batch.images), _logits(case, _corner(case, batch))
    way = at_corner - at_image
    length = way.square().sum(1)
    usable = torch.isfinite(length) & (length > 1e-12 * at_image.square().sum(1))
    scale = torch.where(usable, length, 1)

    def readout(images: Images) -> Logits:
        progress = ((case.subject.logits(images) - at_image) * torch.where(usable[:, None], way, 0)).sum(1) / scale
        return torch.stack([_THRESHOLD - progress, progress - _THRESHOLD], 1)

    return readout, usable


def _logits(case: Case, images: Images) -> Float[Tensor, "batch classes"]:
    with torch.no_grad():
        return case.subject.logits(images)


def _corner(case: Case, batch: Batch) -> Images:
    signs = keyed_uniform(batch.index, case.seed + 1, case.eps_255, batch.images[0].numel()).view(batch.images.shape).sign()
    return project(batch.images + case.eps_255 / 255 * signs, batch.images, case.eps_255 / 255)
