"""What is audited: a model, images, a radius, and the native attack whose number is to be believed.

The native attack is PGD along the gradients of the model as deployed. All checks that ask whether something else is stronger
try it on the images that the native attack left robust.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from nodestill.attacks.audit.tier import Tier
from nodestill.attacks.budget import LinfBudget
from nodestill.attacks.gradient import AttackResult
from nodestill.attacks.gradient_attacks import pgd
from nodestill.attacks.hunt import batches_of
from nodestill.attacks.losses import AttackLoss, cross_entropy
from nodestill.attacks.subject import LogitsFn, Subject, predictions, wrong
from nodestill.data import Batch, ImageSet, eval_batches
from nodestill.errors import InputError, NodestillError
from nodestill.shapes import Images

RADII = (1, 2, 4, 8, 16, 32)  # tried for an audit that was given none
NativeAttack = Callable[[LogitsFn, Batch, LinfBudget, int], AttackResult]  # the last argument is the seed


def native_pgd(logits_fn: LogitsFn, batch: Batch, budget: LinfBudget, seed: int) -> AttackResult:
    """PGD from a random start; an image stays where it is first misclassified."""
    return pgd(logits_fn, batch.images, batch.labels, budget, keys=batch.index, seed=seed, until_fooled=True)


@dataclass(frozen=True)
class Case:
    """A model under audit.

    Args:
        subject: The model, as deployed.
        data: The images.
        eps_255: Radius of the audit in 1/255, >= 1.
        tier: How hard to try.
        batch_size: Images per batch, >= 1.
        seed: Of random starts.
        attack: The native attack.
        kin: Other models by name: the teacher, the undistilled student, ...
        logits: Of the clean images.
        adversarial: What the native attack made of them.
        fooled: Which images are misclassified there, as deployed; wrong clean images count too.
    """

    subject: Subject
    data: ImageSet
    eps_255: int
    tier: Tier
    batch_size: int
    seed: int
    attack: NativeAttack
    kin: Mapping[str, LogitsFn]
    logits: Float[Tensor, "count classes"]
    adversarial: Images = field(repr=False)
    fooled: Bool[Tensor, " count"] = field(repr=False)

    @property
    def clean(self) -> Int64[Tensor, " count"]:
        """Predicted classes of the clean images, -1 where logits are not finite."""
        return predictions(self.logits)

    @property
    def right(self) -> Bool[Tensor, " count"]:
        """Which clean images are classified right."""
        return self.clean == self.data.labels

    @property
    def survivors(self) -> Bool[Tensor, " count"]:
        """Which images the native attack left robust."""
        return self.right & ~self.fooled

    @property
    def budget(self) -> LinfBudget:
        """Of the native attack."""
        return budget_of(self.eps_255, self.tier.steps)

    def limit(self, share: float, count: int | None = None) -> float:
        """Return a limit on a share of images, not below what the tier can tell from none.

        Args:
            share: The limit where there are images enough.
            count: Images that are counted, if not all: of fewer a tier resolves less.
        """
        return max(share, self.tier.resolution * len(self.data) / max(count or len(self.data), 1))

    def batches(self, active: Bool[Tensor, " count"] | None = None) -> Iterator[Batch]:
        """Yield all images, or those that are active, in batches that may be attacked."""
        every = torch.ones_like(self.data.labels, dtype=torch.bool)
        return batches_of(self.subject, self.data, self.batch_size, every if active is None else active)

    def newly_fooled(self, made: Callable[[Batch], Images]) -> Bool[Tensor, " count"]:
        """Return which survivors of the native attack fall, as deployed, to images made otherwise."""
        found = torch.zeros_like(self.fooled)
        for batch in self.batches(self.survivors):
            found[batch.index] = wrong(self.subject, made(batch), batch.labels)
        return found & self.survivors

    def fooled_along(
        self,
        logits_fn: Callable[[Images], LogitsFn],
        budget: LinfBudget,
        *,
        seed: int | None = None,
        loss: AttackLoss = cross_entropy,
    ) -> Bool[Tensor, " count"]:
        """Return which survivors fall to PGD along another function's gradients; `logits_fn` gets a batch's clean images."""
        chosen = self.seed if seed is None else seed

        def made(batch: Batch) -> Images:
            path = logits_fn(batch.images)
            native = path is self.subject.logits  # another path's opinion of what is fooled is not the model's
            keys, seed = batch.index, chosen
            return pgd(path, batch.images, batch.labels, budget, keys=keys, seed=seed, loss=loss, until_fooled=native).images

        return self.newly_fooled(made)


def budget_of(eps_255: int, steps: int) -> LinfBudget:
    """Return so many steps of a quarter of the radius, rounded up; enough of them to cross it twice."""
    return LinfBudget(eps_255, max(1, -(-eps_255 // 4)), max(steps, 8))


def open_case(
    subject: Subject,
    data: ImageSet,
    tier: Tier,
    batch_size: int,
    *,
    eps_255: int | None = None,
    seed: int = 0,
    kin: Mapping[str, LogitsFn] | None = None,
    attack: NativeAttack = native_pgd,
) -> Case:
    """Classify the clean images and run the native attack.

    Args:
        subject: The model, as deployed, in evaluation mode.
        data: Test images; the tier takes its number of them from the first.
        tier: How hard to try.
        batch_size: Images per batch, >= 1.
        eps_255: Radius in 1/255, 1 ... 255. None takes, of 1, 2, 4, ..., 32, the one at which about half of the right images
            survive: there a check has both survivors to attack and fallen images to compare with.
        seed: Of random starts.
        kin: Other models by name.
        attack: The native attack: the one whose number is to be believed.

    Raises:
        InputError: If the radius or the batch size is out of range.
    """
    if eps_255 is not None and not 1 <= eps_255 <= 255:
        raise InputError(f"The radius of an audit must lie in 1 ... 255, in 1/255, got {eps_255}. 8 is usual.")
    data = data if tier.images is None else data.first(tier.images)
    with torch.no_grad():
        logits = torch.cat([subject.logits(batch.images) for batch in eval_batches(data, batch_size)])
    empty = torch.zeros(len(data), dtype=torch.bool, device=data.labels.device)
    case = Case(subject, data, 1, tier, batch_size, seed, attack, kin or {}, logits, logits.new_zeros(0, 3, 1, 1), empty)
    if eps_255 is not None:
        return _attacked(case, eps_255)
    return _half_way(case)


def _half_way(case: Case) -> Case:
    """Return the case at the first of `RADII` where at most half of the right images survive, or the one before if nearer."""
    half, before = case.right.sum() / 2, None
    for eps in RADII:
        tried = _attacked(case, eps)
        if tried.survivors.sum() <= half:
            break
        before = tried
    nearer = before is not None and abs(before.survivors.sum() - half) < abs(tried.survivors.sum() - half)
    return before if nearer and before is not None else tried


def _attacked(case: Case, eps_255: int) -> Case:
    case = replace(case, eps_255=eps_255)
    made, fooled = [], []
    for batch in eval_batches(case.data, case.batch_size):
        images = _made(case, batch)
        made.append(images)
        fooled.append(wrong(case.subject, images, batch.labels))
    return replace(case, adversarial=torch.cat(made), fooled=torch.cat(fooled))


def _made(case: Case, batch: Batch) -> Images:
    """Return what the native attack makes of a batch; where it has no gradient to follow nothing, which a check will say."""
    try:
        return case.attack(case.subject.logits, batch, case.budget, case.seed).images
    except NodestillError:
        return batch.images
