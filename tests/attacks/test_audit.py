"""The audit on models with known truth: the honest one passes everything, each defect is caught by the check meant for it."""

from dataclasses import replace

import pytest
import torch

from attacks import audit_fixtures as fixtures
from nodestill.attacks.audit import CHECKS, QUICK, STANDARD, Verdict, audit, open_case, overall
from nodestill.attacks.audit.case import native_pgd
from nodestill.attacks.audit.verdict import of_share, worst
from nodestill.errors import InputError

DATA = fixtures.images()
MANY = replace(
    STANDARD, steps=10, restarts=1, apgd_steps=15, minimum_norm_steps=40, queries=60, noise=5
)  # 512 images, in seconds


def case_of(subject, *, data=DATA, tier=MANY, eps_255=4, attack=native_pgd, kin=None):
    return open_case(subject, data, tier, 128, eps_255=eps_255, attack=attack, kin=kin)


def one(name, subject, **settings):
    (result,) = audit(case_of(subject, **settings), [name])
    return result


def test_an_honest_model_passes_every_check():
    other = fixtures.Sharp(3.0)
    case = case_of(fixtures.honest(), kin={"teacher": other})
    results = {result.name: result for result in audit(case)}
    assert {name: result.verdict for name, result in results.items()} == dict.fromkeys(CHECKS, Verdict.PASS)
    assert overall(list(results.values())) is Verdict.PASS


def test_the_case_lies_where_half_of_the_right_images_survive():
    case = case_of(fixtures.honest(), eps_255=None)
    assert 0.2 < case.survivors.sum() / case.right.sum() < 0.8


DEFECTS = {
    "saturation": fixtures.saturated,
    "gradient-flow": fixtures.quantised,
    "deterministic": fixtures.noisy,
    "batch-invariance": fixtures.batch_coupled,
    "finite-logits": fixtures.not_a_number,
    "class-collapse": fixtures.constant,
    "logits": fixtures.probabilities,
    "distinct-answers": fixtures.gives_up,
    "evaluation-mode": fixtures.left_in_training,
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_is_caught_by_its_check(name):
    assert one(name, DEFECTS[name]()).verdict is Verdict.FAIL
    assert one(name, fixtures.honest()).verdict is Verdict.PASS


def test_a_detached_stem_is_caught_and_the_other_checks_say_that_they_could_not_be_made():
    case = case_of(fixtures.detached_stem())
    results = {result.name: result for result in audit(case, ["gradient-flow", "planted", "saturation"])}
    assert results["gradient-flow"].verdict is Verdict.FAIL
    assert "differentiably" in results["gradient-flow"].meaning
    assert results["planted"].verdict is Verdict.INCONCLUSIVE
    assert results["saturation"].verdict is Verdict.INCONCLUSIVE


def test_a_radius_in_normalised_units_is_caught_by_the_use_of_the_budget():
    result = one("budget-use", fixtures.honest(), attack=fixtures.in_normalised_units)
    assert result.verdict is Verdict.FAIL
    assert result.measured == 0  # no pixel ends on a face of the box


def test_what_too_few_images_say_of_planted_ones_is_not_that_the_attack_fails():
    sharp = fixtures.Sharp().eval()
    mute = lambda x: sharp(x) * (x[:, 0, 0, :1] > 0.45)  # a fifth of the images has the same logits everywhere  # noqa: E731
    result = one("planted", fixtures.honest()._replace(logits=mute))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.measured > 0.95
    assert result.images < 0.9 * len(DATA)
    assert "too few" in result.meaning
    assert "does not work" not in result.meaning


def test_a_tier_resolves_less_of_fewer_images():
    case = case_of(fixtures.honest(), tier=QUICK, data=DATA.first(64))
    assert case.limit(0.01) == pytest.approx(0.05)
    assert case.limit(0.01, 40) == pytest.approx(0.08)
    assert of_share(0, 40, case.limit(0.01, 40)) is Verdict.PASS
    assert of_share(0, 40, case.limit(0.01)) is Verdict.INCONCLUSIVE


def test_an_attack_that_goes_the_wrong_way_does_not_find_what_was_planted():
    assert one("planted", fixtures.honest(), attack=fixtures.downhill).verdict is Verdict.INCONCLUSIVE


def test_quantised_input_falls_to_an_attack_without_gradients():
    result = one("black-box", fixtures.quantised())
    assert result.verdict is Verdict.FAIL
    assert result.measured > 0.1


def test_saturated_logits_fall_to_images_made_on_a_relative():
    result = one("transfer", fixtures.saturated(), kin={"teacher": fixtures.Sharp()})
    assert result.verdict is Verdict.FAIL


def test_quick_decides_at_what_64_images_can_tell_from_none():
    result = one("black-box", fixtures.honest(), tier=QUICK)
    assert (result.verdict, result.images, result.limit) == (Verdict.PASS, 64, 0.05)
    strict = one("black-box", fixtures.honest(), tier=replace(QUICK, resolution=0.0))
    assert (strict.verdict, strict.limit) == (Verdict.INCONCLUSIVE, 0.01)
    assert "More images" in strict.meaning


def test_a_leak_between_images_is_caught():
    def leaking(model, x):
        return model(x + 0.3 * (x.mean(0, keepdim=True) - x.mean(0, keepdim=True).detach()))

    assert one("cross-image-leak", fixtures.changed(leaking)).verdict is Verdict.FAIL


def test_images_that_cost_a_solver_more_are_found():
    def work(x):
        return (7 + 40 * (x.flatten(1).std(1) > 0.125)).long()

    slow = fixtures.honest()._replace(evaluations=work, effort=lambda x: x.flatten(1).std(1, keepdim=True))
    assert one("latency", slow).verdict is Verdict.FAIL
    assert one("latency", fixtures.honest()._replace(max_steps=None)).verdict is Verdict.FAIL


def test_a_horizon_that_changes_the_answer_is_caught():
    other = lambda x: fixtures.Sharp()(x + 0.1)  # noqa: E731
    assert one("horizon", fixtures.honest()._replace(horizon_rescaled=other)).verdict is Verdict.FAIL


def test_a_gradient_of_another_direction_is_caught():
    turned = fixtures.changed(lambda model, x: model(x.detach()) + 0.0 * x.sum() + (x - x.detach()).flatten(1)[:, :2])
    assert one("gradient-quality", turned).verdict is Verdict.FAIL


@pytest.mark.parametrize("name", ["gradient-paths", "saturation", "attack-converged", "black-box"])
def test_where_no_image_is_left_robust_nothing_passes_that_would_have_attacked_one(name):
    result = one(name, fixtures.honest(), eps_255=64)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "no image was left robust at 64/255. Take a smaller radius." in result.meaning


def test_checks_that_are_done_are_skipped_and_unneeded_ones_say_nothing():
    case = case_of(fixtures.honest()._replace(gradient_paths={}, evaluations=None))
    names = [result.name for result in audit(case, ["finite-logits", "gradient-paths", "transfer", "latency"], done=["logits"])]
    assert names == ["finite-logits"]
    assert list(audit(case, ["logits"], done=["logits"])) == []


def test_a_radius_out_of_range_is_refused():
    with pytest.raises(InputError, match=r"1 \.\.\. 255"):
        case_of(fixtures.honest(), eps_255=0)


@pytest.mark.parametrize(
    ("hits", "count", "verdict"),
    [
        (0, 512, Verdict.PASS),
        (2, 512, Verdict.INCONCLUSIVE),
        (12, 512, Verdict.FAIL),
        (0, 64, Verdict.INCONCLUSIVE),
        (0, 0, Verdict.INCONCLUSIVE),
    ],
)
def test_a_share_is_judged_by_its_exact_interval(hits, count, verdict):
    assert of_share(hits, count, 0.01) is verdict


def test_the_gravest_verdict_counts():
    assert worst([Verdict.PASS, Verdict.WARN]) is Verdict.WARN
    assert worst([Verdict.INCONCLUSIVE, Verdict.WARN]) is Verdict.INCONCLUSIVE
    assert worst([Verdict.INCONCLUSIVE, Verdict.FAIL]) is Verdict.FAIL


def test_an_audit_leaves_the_model_as_it_was():
    subject = fixtures.honest()
    before = {name: value.clone() for name, value in subject.module.state_dict().items()}
    list(audit(case_of(subject), ["gradient-quality", "saturation"]))
    assert all(torch.equal(value, before[name]) for name, value in subject.module.state_dict().items())
    assert not subject.module.training
