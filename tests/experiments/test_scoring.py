"""Scoring: in float32, with failed solves counted, evaluations per image, and the model left as it was."""

from dataclasses import replace

import pytest
import torch

import tiny
from nodestill.experiments.members import build_model
from nodestill.experiments.scoring import evaluation_counts, monitor, score, scored, subject_of
from nodestill.models import parameter_count
from nodestill.ode import Solver, StepControl
from nodestill.ode.solver import Method
from nodestill.precision import Precision


def node(solver: Solver | None = None, t1: float = 1.0):
    settings = tiny.student(tiny.SGD, None, t1).model
    return build_model(settings if solver is None else replace(settings, solver=solver), 0, 3).eval()


def resnet():
    return build_model(tiny.teacher(tiny.SGD, width=2).model, 0, 3).eval()


def test_evaluations_are_counted():
    counts = evaluation_counts(torch.tensor([14, 20, 14, 8]))
    assert counts == {"mean": 14.0, "min": 8, "max": 20, "histogram": {"8": 1, "14": 2, "20": 1}}
    assert list(counts["histogram"]) == ["8", "14", "20"]


def test_a_model_is_scored_with_f_in_float32_and_keeps_its_weights():
    model = node(Solver(precision=Precision.BFLOAT16))
    other = scored(model)
    assert other.solver == Solver(precision=Precision.FLOAT32)
    assert model.solver.precision is Precision.BFLOAT16
    assert all(a is b for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert scored(plain := resnet()) is plain


def several(t1: float = 1.0):
    settings = replace(tiny.student(tiny.SGD, None, t1).model, further=(6, 5))
    return build_model(settings, 0, 3).eval()


@pytest.mark.parametrize("make", [node, several, resnet])
def test_an_evaluation_says_what_the_model_says(make):
    model, data = make(), tiny.images(30)
    found = score(model, data, None)
    right = model(data.images.float() / 255).argmax(1) == data.labels
    assert found["clean"].accuracy == pytest.approx(float(right.double().mean()))
    assert found["clean"].agreement is None
    assert found["cost"]["parameters"] == parameter_count(model)
    assert found["seconds"] > 0
    if make is resnet:
        assert found["evaluations"] is found["cost"]["macs_per_evaluation"] is None
        return
    counts = model.predict(data.images.float() / 255).evaluations
    assert found["evaluations"] == evaluation_counts(counts)
    per_call, mean = found["cost"]["macs_per_evaluation"], float(counts.double().mean())
    stem_only = score(make(t1=0.0), data, None)["cost"]["macs"]
    assert found["cost"]["macs"] == pytest.approx(stem_only + per_call * mean)
    assert found["cost"]["macs_in_f"] == pytest.approx(per_call * mean)


@pytest.mark.parametrize("make", [node, several])
def test_the_stem_alone_has_no_evaluations_and_none_of_the_parameters_of_f(make):
    model = make(t1=0.0)
    found = score(model, tiny.images(30), None)
    assert found["evaluations"] == {"mean": 0.0, "min": 0, "max": 0, "histogram": {"0": 30}}
    assert found["cost"]["parameters"] == sum(map(parameter_count, (model.encoder, model.transitions, model.head)))


def test_a_twin_costs_what_its_student_does_and_evaluates_nothing():
    settings = replace(tiny.student(tiny.SGD, None).model, further=(6,), solver=Solver(Method.MIDPOINT, steps=2))
    student, twin = (score(build_model(replace(settings, twin=twin), 0, 3), tiny.images(30), None) for twin in (False, True))
    assert twin["cost"]["macs"] == student["cost"]["macs"]
    assert twin["evaluations"] is None
    assert student["evaluations"]["mean"] == 8.0


def test_agreement_is_measured_with_a_teacher():
    model = resnet()
    assert score(model, tiny.images(30), model)["clean"].agreement == 1.0


def test_failed_solves_are_wrong_and_stop_nothing():
    model = node(Solver(max_steps=1, rtol=1e-9, atol=1e-9))
    found = score(model, tiny.images(30), None)["clean"]
    assert (found.failed, found.accuracy) == (30, 0.0)
    logits = subject_of(model).logits(tiny.images(4).images.float() / 255)
    assert torch.isnan(logits).all()


@pytest.mark.parametrize("training", [True, False])
def test_monitoring_looks_at_the_first_images_and_leaves_the_mode(training):
    model, data = resnet().train(training), tiny.images(30)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    measured = monitor(model, data, 7)
    assert model.training is training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    right = model.eval()(data.images[:7].float() / 255).argmax(1) == data.labels[:7]
    assert measured["accuracy"] == pytest.approx(float(right.double().mean()))
    assert set(measured) == {"accuracy", "loss"}
    assert set(monitor(node(), data, 7)) == {"accuracy", "loss", "evaluations"}
    assert monitor(model, data, 0) == {}


def test_every_call_of_an_attacked_model_is_told():
    calls = []
    for model in (node(), resnet()):
        subject = subject_of(model, lambda: calls.append(1))
        images = torch.rand(3, 3, 8, 8)
        torch.testing.assert_close(subject.logits(images), model(images))
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("solver", "independent"),
    [
        (Solver(), True),
        (Solver(step_control=StepControl.SHARED), False),
        (Solver(Method.EULER, steps=2, step_control=StepControl.SHARED), True),
    ],
)
def test_only_a_shared_adaptive_step_couples_the_images_of_a_batch(solver, independent):
    assert subject_of(node(solver)).batch_independent is independent
    assert subject_of(node(solver)).evaluations(torch.rand(2, 3, 8, 8)).shape == (2,)
    assert subject_of(resnet()).batch_independent
    assert subject_of(resnet()).evaluations is None
