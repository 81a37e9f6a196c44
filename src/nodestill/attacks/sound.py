"""Protocol `sound`: the smallest radius at which any attack fools the model as deployed, image by image.

An image counts as robust at a radius only if it is classified right and no attack ever fooled it at that radius or a smaller
one, at any iterate. So an image that fell at 2/255 is not attacked at 3/255: most of a curve costs nothing. Gradients may come
from a replayed solve, but what counts is the deployed model's answer to the final image.

Attacks run one after the other, each by increasing radius. A row says which images fell in it, so the rows alone are enough to
go on from. Images leave their batch only if the model classifies each by itself; else batches stay whole.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from nodestill.attacks.budget import LinfBudget
from nodestill.attacks.hunt import Hunt, batches_of
from nodestill.attacks.rows import AttackName, Protocol, RobustnessRow
from nodestill.attacks.subject import predictions
from nodestill.attacks.tries import NEVER, tried
from nodestill.data import eval_batches
from nodestill.errors import InputError
from nodestill.flags import to_hex
from nodestill.intervals import wilson_interval
from nodestill.shapes import Images

ALL_ATTACKS = tuple(attack for attack in AttackName if attack is not AttackName.AUTOATTACK)  # our own
WORST_CASE = "worst-case"  # what stands as the attack in the rows of the curve


@dataclass(frozen=True)
class SoundRow:
    """What one attack added at one radius."""

    attack: str  # value of an `AttackName`
    eps_255: int  # of the minimum-norm attack: the largest radius asked for
    images: int  # in the whole set
    attacked: int  # those that were robust so far
    fooled: tuple[int, ...]  # places in the set of the images that fell, as deployed
    radii_255: tuple[int, ...]  # the radius at which each of them fell, rounded up
    unconfirmed: int  # fooled along the path of the gradient, but not as deployed: not counted as fooled
    bad_gradient_images: int
    failed_images: int  # their final logits are not finite: they count as fallen
    gradient_calls: float  # mean over the images of the whole set
    effort: Mapping[str, int]
    seed: int
    seconds: float
    schema: int = 1


class WorstCase(NamedTuple):
    """The state of a hunt."""

    radius_255: Int64[Tensor, " count"]  # smallest radius at which an image fell; 0: wrong from the start; 256: never
    by: tuple[str, ...]  # the attack that did it, per image; "clean", or "" for none

    def robust(self, eps_255: int) -> Bool[Tensor, " count"]:
        """Return which images nothing fooled at this radius or a smaller one."""
        return self.radius_255 > eps_255

    def after(self, row: SoundRow) -> "WorstCase":
        """Return the state once a row is taken into account."""
        radius, by = self.radius_255.clone(), list(self.by)
        for place, eps in zip(row.fooled, row.radii_255, strict=True):
            if eps < radius[place]:
                radius[place], by[place] = eps, row.attack
        return WorstCase(radius, tuple(by))


class ImageFallen(NamedTuple):
    """Images of one batch that an attack fooled as deployed; handed to whoever keeps pictures."""

    places: Int64[Tensor, " fallen"]  # in the set
    images: Images
    radii_255: Int64[Tensor, " fallen"]
    attack: AttackName


def start(hunt: Hunt) -> WorstCase:
    """Classify the clean images: what is wrong already has radius 0."""
    with torch.no_grad():
        batches = eval_batches(hunt.data, hunt.batch_size)
        right = torch.cat([predictions(hunt.subject.logits(b.images)) == b.labels for b in batches])
    by = tuple("" if one else "clean" for one in right.tolist())
    return WorstCase(torch.where(right, NEVER, 0), by)


def hunt_down(
    hunt: Hunt,
    attacks: Sequence[AttackName],
    eps_255: Sequence[int],
    *,
    state: WorstCase | None = None,
    done: Sequence[SoundRow] = (),
    on_fallen: Callable[[ImageFallen], None] = lambda fallen: None,
) -> Iterator[SoundRow]:
    """Run attack after attack, each by increasing radius, on the images that are still robust; hand out a row for each.

    Args:
        hunt: What is attacked, and with what.
        attacks: Attacks to run, in this order.
        eps_255: Radii in 1/255, 1 ... 255, in any order; 0 is no radius to attack at and is left out.
        state: What `start` returned; computed if not given.
        done: Rows of an earlier, interrupted hunt of the same attacks and radii: they are not made again.
        on_fallen: Told of images as they fall.

    Returns:
        The rows that are not yet done.

    Raises:
        InputError: If a radius is out of range, or transfer is asked for without relatives.
    """
    radii = sorted({LinfBudget(eps).eps_255 for eps in eps_255} - {0})
    if AttackName.TRANSFER in attacks and not hunt.kin:
        raise InputError("There are no other models whose images could be tried. Leave transfer out, or name relatives.")
    state = start(hunt) if state is None else state
    for row in done:
        state = state.after(row)
    finished = {(row.attack, row.eps_255) for row in done}
    for attack in attacks:
        for eps in radii[-1:] if attack is AttackName.FMN else radii:
            if (attack.value, eps) not in finished:
                row = _row(hunt, attack, eps, state, on_fallen)
                state = state.after(row)
                yield row


def _row(hunt: Hunt, attack: AttackName, eps: int, state: WorstCase, on_fallen: Callable[[ImageFallen], None]) -> SoundRow:
    since, tries = perf_counter(), []
    active = state.robust(1 if attack is AttackName.FMN else eps)
    for batch in batches_of(hunt.subject, hunt.data, hunt.batch_size, active):
        wanted = active[batch.index]
        result = tried(hunt, attack, eps, batch, wanted)
        fallen = result.fooled & wanted & (result.radius_255 < state.radius_255[batch.index])
        on_fallen(ImageFallen(batch.index[fallen], result.images[fallen], result.radius_255[fallen], attack))
        tries.append((batch.index[fallen], result.radius_255[fallen], wanted, result))
    return SoundRow(
        attack=attack.value,
        eps_255=eps,
        images=len(hunt.data),
        attacked=int(active.sum()),
        fooled=tuple(place for places, *_ in tries for place in places.tolist()),
        radii_255=tuple(radius for _, radii, *_ in tries for radius in radii.tolist()),
        unconfirmed=sum(int((result.unconfirmed & wanted).sum()) for *_, wanted, result in tries),
        bad_gradient_images=sum(int((result.bad & wanted).sum()) for *_, wanted, result in tries),
        failed_images=sum(int((result.failed & wanted).sum()) for *_, wanted, result in tries),
        gradient_calls=sum(result.calls for *_, result in tries) / len(hunt.data),
        effort=vars(hunt.effort),
        seed=hunt.seed,
        seconds=perf_counter() - since,
    )


def worst_case_curve(
    hunt: Hunt, attacks: Sequence[AttackName], eps_255: Sequence[int], rows: Sequence[SoundRow], state: WorstCase
) -> list[RobustnessRow]:
    """Return the curve of a finished hunt: at each radius the images that nothing fooled there or nearer.

    Args:
        hunt: What was attacked.
        attacks: The attacks that ran.
        eps_255: Radii of the curve in 1/255; 0 gives the clean accuracy.
        rows: All rows of the hunt.
        state: The state after them.
    """
    labels, count = hunt.data.labels, len(hunt.data)
    clean, curve = int(state.robust(0).sum()), []
    for eps in sorted(set(eps_255)):
        robust = state.robust(eps)
        hits, here = int(robust.sum()), [row for row in rows if row.eps_255 == eps]
        low, high = wilson_interval(hits, count)
        curve.append(
            RobustnessRow(
                protocol=Protocol.SOUND.value,
                attack=WORST_CASE,
                eps_255=eps,
                step_255=max(1, -(-eps // 4)),
                steps=hunt.effort.steps,
                momentum=None,
                random_start=True,
                seed=hunt.seed,
                images=count,
                clean_accuracy=clean / count,
                accuracy=hits / count,
                robust_accuracy=hits / count,
                correct=hits,
                robust=hits,
                wilson_low=low,
                wilson_high=high,
                bad_gradient_images=max((row.bad_gradient_images for row in here), default=0),
                failed_images=max((row.failed_images for row in here), default=0),
                gradient_calls=round(sum(row.gradient_calls for row in here)),
                mean_evaluations=None,
                predicted=(),
                survivors=tuple(torch.bincount(labels[robust].cpu(), minlength=hunt.data.num_classes).tolist()),
                which=to_hex(robust.tolist()),
                seconds=sum((row.seconds for row in here), start=0.0),
                restarts=2,
                loss="worst of " + ", ".join(attack.value for attack in attacks),
                scored="any iterate, as deployed",
            )
        )
    return curve
