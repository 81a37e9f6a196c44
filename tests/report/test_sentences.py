"""Sentences and captions: true to the rows, honest where intervals overlap, loud where a number may mislead."""

from dataclasses import replace

import pytest

from nodestill.intervals import wilson_interval
from nodestill.report import sentences
from nodestill.report.captions import cautions, protocol_caption
from nodestill.report.select import fingerprint_of, key_radius, label, main_run
from nodestill.report.sentences import big_numbers, compare, title
from report.made_records import audited, bare, made_experiment, made_run


def with_clean(role, correct, images):
    run = made_run(role)
    low, high = wilson_interval(correct, images)
    clean = {"images": images, "accuracy": correct / images, "accuracy_low": low, "accuracy_high": high}
    return replace(run, evaluation={**run.evaluation, "clean": {**run.evaluation["clean"], **clean}})


def test_the_story_in_sentences():
    assert sentences(made_experiment().runs) == [
        "Distilled NODE(1): 87.3 % clean (teacher 91.7 %, undistilled 85.6 %, stem only 74.1 %).",
        "The distilled student is clearly above the stem alone and within the uncertainty of the undistilled student, by 95 % "
        "intervals of 1,000 test images. One training run each: the spread between seeds is not in these intervals.",
        "At 8/255, the distilled student's accuracy falls to 33.5 % under PGD and to 12.5 % under MI-FGSM (the teacher's to "
        "3.6 % and 1.9 %). No audit was run: read these as upper bounds.",
    ]


@pytest.mark.parametrize(
    ("ours", "theirs", "images", "said"),
    [
        (900, 880, 1_000, "level"),
        (9_000, 8_800, 10_000, "above"),
        (8_800, 9_000, 10_000, "below"),
        (9_000, 9_000, 10_000, "level"),
    ],
)
def test_overlap_of_intervals_decides(ours, theirs, images, said):
    runs = [with_clean("distilled", ours, images), with_clean("undistilled", theirs, images)]
    assert compare(*runs) == said
    words = {"level": "within the uncertainty of", "above": "clearly above", "below": "clearly below"}
    assert f"is {words[said]} the undistilled student, by" in sentences(runs)[1]


def test_the_discrete_twin_is_a_control_like_others():
    runs = made_experiment("teacher", "distilled", "stem-only", "discrete-twin").runs
    assert sentences(runs)[0].endswith("(teacher 91.7 %, stem only 74.1 %, discrete twin 88.1 %).")
    assert "clearly above the stem alone and within the uncertainty of its discrete twin, by" in sentences(runs)[1]
    assert [label(run) for run in runs] == ["Teacher ResNet-20", "Distilled NODE(1)", "Stem only", "Discrete twin"]


def test_teacher_alone():
    runs = [bare(made_run("teacher"))]
    assert sentences(runs) == ["Teacher ResNet-20: 91.7 % clean.", "Not attacked yet."]
    assert title(runs) == "Teacher ResNet-20"
    assert [number.value for number in big_numbers(runs)] == ["91.7 %", "40.6 M"]
    assert cautions(runs) == []


def test_big_numbers_take_the_worst_attack():
    numbers = big_numbers(made_experiment().runs)
    assert [number.value for number in numbers] == ["87.3 %", "91.7 %", "12.5 %", "23.8"]
    assert numbers[2].name == "Distilled, under MI-FGSM at 8/255"
    assert "not audited" in numbers[2].detail


def test_title_and_choice_of_the_main_model():
    assert title(made_experiment().runs) == "NODE(1), taught by ResNet-20"
    assert main_run(made_experiment("teacher", "stem-only", "undistilled").runs).role == "undistilled"
    assert title(made_experiment("distilled").runs) == "Distilled NODE(1)"
    assert label(replace(made_run("teacher"), role="witness")) == "witness ResNet-20"


def test_key_radius_is_the_nearest_to_eight():
    run = made_run("teacher")
    few = replace(run, robustness=[row for row in run.robustness if row["eps_255"] in (0, 2, 12)])
    assert key_radius([few]) == 12
    assert key_radius([replace(run, robustness=run.robustness[:1])]) is None


def test_protocol_caption_states_the_protocol():
    caption = protocol_caption(made_experiment().runs)
    for part in (
        "CIFAR-10, JPEG mirror",
        "chu2022",
        "PGD from a uniform random start (10 steps of 1/255 at ε = 8/255)",
        "MI-FGSM from the image itself with momentum 1",
        "last iterate, on all 1,000 images",
    ):
        assert part in caption


def test_cautions_name_who_stays_above_chance_and_count_what_went_wrong():
    first, levelling, trouble = cautions(made_experiment().runs)
    assert first.startswith("Not audited. These attacks are weak by construction")
    assert "stays above chance (10.0 %) at the largest radius: Distilled NODE(1) under PGD (17.5 % at 20/255)." in levelling
    assert trouble.startswith("Distilled NODE(1): up to 5 of 1,000 images with a zero or non-finite gradient")


def test_an_audit_stands_beside_the_numbers_it_judges():
    teacher, student = made_run("teacher"), audited(made_run("distilled"), "fail", "gradient-paths", "worst-case")
    runs = [teacher, student]
    assert sentences(runs)[-1].endswith("Its audit says FAIL (gradient-paths and worst-case): do not read these as robustness.")
    assert big_numbers(runs)[2].detail.endswith("; audit: fail")
    first, second, *_ = cautions(runs)
    assert first.startswith("Not audited: Teacher ResNet-20. These attacks are weak by construction")
    assert second == (
        "Distilled NODE(1): audited (tier quick, 64 images, checks at 4/255): FAIL (gradient-paths and worst-case). "
        "Robust in the worst case over our attacks: 25.0 % at 4/255 and 3.1 % at 8/255."
    )


def test_an_audit_that_passes():
    student = audited(made_run("distilled"), "pass")
    assert sentences([student])[-1].endswith("Its audit found nothing against these numbers.")
    assert "PASS. Robust" in cautions([student])[0]
    assert not any("Not audited" in line for line in cautions([student]))


def test_no_warning_without_reason_and_failed_solves_with():
    run = made_run("undistilled")
    assert len(cautions([run])) == 1
    failing = replace(run, robustness=[{**row, "failed_images": row["eps_255"] // 10} for row in run.robustness])
    assert cautions([failing])[1] == (
        "Undistilled NODE(1): up to 2 of 1,000 images without finite logits (counted as wrong); largest count: PGD at 20/255."
    )


def test_clean_rows_alone_are_no_sign_of_levelling():
    run = made_run("distilled")
    assert len(cautions([replace(run, robustness=run.robustness[:1])])) == 1


def test_fingerprint_is_the_end_of_the_folder_name(tmp_path):
    assert fingerprint_of(replace(made_run("teacher"), path=tmp_path / "teacher-digits-0123abcd")) == "0123abcd"
    assert fingerprint_of(replace(made_run("teacher"), path=tmp_path / "mine")) is None
