"""The protocol `sound`: closed-form smallest radii, resume from rows, deployed answers, whole batches of coupled images."""

from itertools import pairwise

import pytest
import torch

from attacks import audit_fixtures as fixtures
from attacks.oracles import Affine
from nodestill.attacks import ALL_ATTACKS, AttackName, Effort, Hunt, Subject, hunt_down, mi_fgsm, paper_budget, pgd, start
from nodestill.attacks import worst_case_curve as curve_of
from nodestill.errors import InputError
from nodestill.flags import from_hex

DATA = fixtures.images(96)
RADII = (1, 2, 3, 4, 6)
EFFORT = Effort(steps=12, apgd_steps=20, targets=1, minimum_norm_steps=60, queries=40)
TWO_CLASSES = tuple(attack for attack in ALL_ATTACKS if attack not in (AttackName.APGD_DLR, AttackName.TRANSFER))


def hunt(subject=None, **settings):
    return Hunt(subject or fixtures.honest(), DATA, 32, EFFORT, **settings)


def after(state, rows):
    for row in rows:
        state = state.after(row)
    return state


def smallest_radii():
    """In closed form: every pixel moves against its own class, so the margin falls by eps times the L1 norm of the weights."""
    model, images = Affine(fixtures.PIXELS), DATA.images.double() / 255
    margin = (images - 0.5).flatten(1) @ model.direction.double()
    right = (margin > 0).long() == DATA.labels
    needed = 255 * margin.abs() / model.direction.double().abs().sum()
    fallen = torch.stack([torch.full_like(needed, eps) > needed for eps in RADII])
    first = torch.tensor(RADII)[fallen.int().argmax(0)]
    return torch.where(right, torch.where(fallen.any(0), first, 256), 0)


@pytest.mark.parametrize("attack", [AttackName.PGD, AttackName.MI_FGSM, AttackName.APGD_CE])
def test_each_gradient_attack_finds_the_smallest_radius_of_an_affine_model(attack):
    asked = hunt()
    state = after(start(asked), hunt_down(asked, [attack], RADII))
    assert torch.equal(state.radius_255, smallest_radii())
    assert set(state.by) == {"clean", attack.value, ""}


def test_the_minimum_norm_attack_needs_one_row_and_finds_radii_between_those_asked_for():
    asked = hunt()
    rows = list(hunt_down(asked, [AttackName.FMN], RADII))
    assert [row.eps_255 for row in rows] == [6]
    state, best = after(start(asked), rows), smallest_radii()
    assert ((state.radius_255 <= best + 1) & (state.radius_255 >= 0)).all()
    assert (state.radius_255 > 0).logical_or(best == 0).all()


def test_all_attacks_together_are_never_weaker_than_the_paper_and_stay_at_the_closed_form():
    asked = hunt()
    rows = list(hunt_down(asked, TWO_CLASSES, RADII))
    state = after(start(asked), rows)
    for eps in RADII:
        batch = DATA.at(torch.arange(len(DATA)))
        weak = pgd(asked.subject.logits, batch.images, batch.labels, paper_budget(eps), keys=batch.index)
        strong = mi_fgsm(asked.subject.logits, batch.images, batch.labels, paper_budget(eps))
        assert state.robust(eps).sum() <= (~(weak.fooled | strong.fooled)).sum()
        assert torch.equal(state.robust(eps), smallest_radii() > eps)


def test_rows_of_an_interrupted_hunt_lead_to_the_same_end():
    asked = hunt()
    whole = list(hunt_down(asked, TWO_CLASSES, RADII))
    rest = list(hunt_down(asked, TWO_CLASSES, RADII, done=whole[:7]))
    assert [(row.attack, row.eps_255, row.fooled) for row in rest] == [(r.attack, r.eps_255, r.fooled) for r in whole[7:]]
    assert list(hunt_down(asked, TWO_CLASSES, RADII, done=whole)) == []


def test_an_image_that_fell_is_not_attacked_again():
    asked = hunt()
    rows = list(hunt_down(asked, [AttackName.MI_FGSM], RADII))
    right = int((start(asked).radius_255 > 0).sum())
    assert rows[0].attacked == right
    for before, row in pairwise(rows):
        assert row.attacked == before.attacked - len(before.fooled)


def test_only_the_deployed_model_decides():
    """Along the path of the gradient everything looks fooled; as deployed nothing moves."""
    model = fixtures.Sharp().eval()
    stubborn = Subject(
        lambda x: model(x * 0 + 0.5) + torch.tensor([5.0, 0.0]),
        batch_independent=True,
        replay=lambda clean: lambda x: -50 * model(x),
    )
    asked = hunt(stubborn)
    rows = list(hunt_down(asked, [AttackName.APGD_CE], [8]))
    assert rows[0].fooled == ()
    assert rows[0].unconfirmed > 0


def test_images_that_depend_on_their_batch_stay_in_it():
    sizes = []
    model = fixtures.Sharp().eval()

    def logits(images):
        sizes.append(len(images))
        return model(images)

    asked = hunt(Subject(logits))
    state = after(start(asked), hunt_down(asked, [AttackName.MI_FGSM], RADII))
    assert set(sizes) == {32}
    assert torch.equal(state.radius_255, smallest_radii())


def test_transfer_tries_the_images_of_relatives():
    asked = hunt(kin={"teacher": fixtures.Sharp(1.0)})
    rows = list(hunt_down(asked, [AttackName.TRANSFER], RADII))
    assert torch.equal(after(start(asked), rows).radius_255, smallest_radii())  # they point the same way


def test_transfer_without_relatives_is_refused():
    with pytest.raises(InputError, match="Leave transfer out"):
        next(hunt_down(hunt(), [AttackName.TRANSFER], RADII))


def test_what_only_the_replay_takes_for_fooled_is_attacked_again_as_deployed():
    """A replay that is wrong about every image costs tries, not soundness."""
    model = fixtures.Sharp().eval()
    astray = fixtures.honest()._replace(replay=lambda clean: lambda x: -model(x))
    asked = hunt(astray)
    state = after(start(asked), hunt_down(asked, [AttackName.APGD_CE], RADII))
    assert torch.equal(state.radius_255, smallest_radii())


def test_failed_images_are_counted():
    model = fixtures.Sharp().eval()
    failing = Subject(lambda x: torch.where(x[:, 0, 0, :1] > 0.62, torch.nan, model(x)), batch_independent=True)
    rows = list(hunt_down(hunt(failing), [AttackName.MI_FGSM], RADII))
    assert sum(row.failed_images for row in rows) > 0


def test_the_curve_counts_what_nothing_fooled():
    asked = hunt()
    rows = list(hunt_down(asked, [AttackName.PGD], RADII))
    state = after(start(asked), rows)
    curve = curve_of(asked, [AttackName.PGD], (0, *RADII), rows, state)
    assert [row.robust for row in curve] == [int((smallest_radii() > eps).sum()) for eps in (0, *RADII)]
    assert all(sum(row.survivors) == row.robust and row.protocol == "sound" for row in curve)
    assert all(from_hex(row.which, row.images) == state.robust(row.eps_255).tolist() for row in curve)
    assert curve[0].accuracy == curve[0].clean_accuracy


def test_fallen_images_are_handed_out_within_their_radius():
    asked, seen = hunt(), {}
    list(hunt_down(asked, [AttackName.PGD], RADII, on_fallen=lambda one: seen.update(zip(one.places.tolist(), one.images))))
    assert len(seen) == int(((smallest_radii() > 0) & (smallest_radii() < 256)).sum())
    for place, image in seen.items():
        moved = (image - DATA.images[place].float() / 255).abs().max() * 255
        assert moved <= smallest_radii()[place] + 1e-3


def test_a_radius_out_of_range_is_refused():
    with pytest.raises(InputError, match=r"0 \.\.\. 255"):
        next(hunt_down(hunt(), [AttackName.PGD], [300]))


def test_an_effort_without_steps_is_refused():
    with pytest.raises(InputError, match="apgd_steps"):
        Effort(apgd_steps=0)
