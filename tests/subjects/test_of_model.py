"""Our models as subjects: the ways to one function agree, and each is what it is called after."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

import tiny
from nodestill.attacks import loss_gradient
from nodestill.experiments.members import build_model
from nodestill.models import Activation, NeuralODEClassifier, Norm
from nodestill.ode import GradientMode, Method, Solver, StepControl
from nodestill.subjects.of_model import subject_of_model
from subjects.small_subjects import PATHS, close, gradient, pictures, resnet

TIGHT = Solver(rtol=1e-6, atol=1e-6)


def node(solver: Solver = TIGHT, t1: float = 1.0, further: tuple[int, ...] = ()) -> NeuralODEClassifier:
    """A Neural ODE whose f is smooth, so that tight solves take few steps."""
    smooth = {"layers": 2, "norm": Norm.NONE, "activation": Activation.TANH, "channels": 4}
    settings = replace(tiny.student(tiny.SGD, None, t1).model, solver=solver, further=further, **smooth)
    return build_model(settings, 0, 3).eval().requires_grad_(False)


@pytest.mark.parametrize("further", [(), (6,)])
def test_all_paths_of_a_node_agree_to_the_error_of_its_solver(further):
    subject, images = subject_of_model(node(further=further)), pictures()
    assert list(subject.gradient_paths) == PATHS
    logits, exact = subject.logits(images), gradient(subject.gradient_paths["float64"], images)
    for name, path in subject.gradient_paths.items():
        close(path(images), logits, 1e-3 if name == "fixed" else 1e-4)
        close(gradient(path, images), exact, 1e-1 if name == "fixed" else 1e-2)


def test_the_modes_of_a_loose_solver_are_those_they_are_called_after():
    model, images = node(Solver(rtol=1e-2, atol=1e-2), t1=5.0), pictures()
    paths = subject_of_model(model).gradient_paths
    found = {name: gradient(paths[name], images) for name in ("recompute", "direct", "adjoint", "tight")}
    close(found["direct"], found["recompute"], 1e-5)
    for name in ("adjoint", "tight"):
        assert float((found[name] - found["recompute"]).norm() / found["recompute"].norm()) > 1e-4
    assert paths["float64"](images).dtype == torch.float64
    assert next(model.parameters()).dtype == torch.float32


def test_the_float64_path_is_the_model_in_double():
    model, images = node(), pictures()
    expected = deepcopy(model).double()(images.double())
    torch.testing.assert_close(subject_of_model(model).gradient_paths["float64"](images), expected, rtol=1e-9, atol=1e-9)


def test_fixed_steps_are_refined_in_the_tight_path():
    model, images = node(Solver(Method.MIDPOINT, steps=2)), pictures()
    subject = subject_of_model(model)
    finer = model.with_solver(Solver(Method.MIDPOINT, steps=8))
    torch.testing.assert_close(subject.gradient_paths["tight"](images), finer(images))
    assert (subject.max_steps, subject.effort) == (2, None)
    assert subject.batch_independent


@pytest.mark.parametrize("solver", [Solver(), Solver(Method.EULER, steps=3), Solver(step_control=StepControl.SHARED)])
@pytest.mark.parametrize("further", [(), (6,)])
def test_a_replay_is_the_solve_of_the_recorded_images(solver, further):
    subject, images = subject_of_model(node(solver, further=further)), pictures()
    replay = subject.replay(images)
    torch.testing.assert_close(replay(images), subject.logits(images), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient(replay, images), gradient(subject.logits, images), rtol=1e-4, atol=1e-7)
    near = (images + 1 / 255).clamp(max=1)
    close(replay(near), subject.logits(near), 1e-2)


def test_a_reference_takes_the_same_steps_in_double():
    model = node(Solver(rtol=1e-1, atol=1e-1), t1=3.0)
    subject, images = subject_of_model(model), pictures()
    reference, steps = subject.reference(images), model.predict(images).steps
    expected = deepcopy(model).double().predict(images.double(), replay=steps).logits
    torch.testing.assert_close(reference(images), expected, rtol=1e-9, atol=1e-9)
    close(gradient(reference, images), gradient(subject.logits, images), 1e-4)
    assert not torch.allclose(reference(images), subject.gradient_paths["tight"](images).double(), rtol=1e-4)


@pytest.mark.parametrize(("first_step", "further"), [(0.3, ()), (None, (6,))])
def test_a_rescaled_horizon_changes_nothing(first_step, further):
    solver = Solver(rtol=1e-7, atol=1e-7, first_step=first_step)
    subject, images = subject_of_model(node(solver, 4.0, further).double()), pictures().double()
    close(subject.horizon_rescaled(images), subject.logits(images), 1e-5)
    close(gradient(subject.horizon_rescaled, images), gradient(subject.logits, images), 1e-4)


def test_a_horizon_of_one_cannot_be_rescaled():
    assert subject_of_model(node(Solver())).horizon_rescaled is None


def test_with_given_steps_a_rescaled_horizon_is_the_same_to_rounding():
    subject = subject_of_model(node(Solver(Method.RK4, steps=3), 7.0).double())
    images = pictures().double()
    torch.testing.assert_close(subject.horizon_rescaled(images), subject.logits(images), rtol=1e-10, atol=1e-12)


def test_the_effort_of_an_image_is_its_error_estimate_and_can_be_climbed():
    model, images = node(Solver(rtol=1e-2, atol=1e-2), t1=3.0, further=(6,)).double(), pictures().double()
    subject = subject_of_model(model)
    expected = sum(solution.error for solution in model.predict(images).solutions)
    torch.testing.assert_close(subject.effort(images)[:, 0], expected)
    uphill = loss_gradient(subject.effort, images, torch.zeros(3, dtype=torch.int64), lambda error, _: error[:, 0]).gradient
    slope = (subject.effort(images + 1e-6 * uphill.sign()) - subject.effort(images - 1e-6 * uphill.sign())).sum() / 2e-6
    torch.testing.assert_close(slope, uphill.abs().sum(), rtol=1e-4, atol=0)


def test_what_else_is_known_of_a_node():
    model, images = node(Solver(max_steps=77)), pictures()
    subject = subject_of_model(model)
    assert torch.equal(subject.evaluations(images), model.predict(images).evaluations)
    assert (subject.max_steps, subject.module, subject.batch_independent) == (77, model, True)
    assert not subject_of_model(node(Solver(step_control=StepControl.SHARED))).batch_independent
    adjoint = subject_of_model(node(replace(TIGHT, gradient=GradientMode.ADJOINT)))
    close(gradient(adjoint.logits, images), gradient(adjoint.gradient_paths["adjoint"], images), 1e-6)


def test_a_failed_solve_is_not_a_number_on_every_way():
    subject, images = subject_of_model(node(Solver(max_steps=1, rtol=1e-9, atol=1e-9), 2.0)), pictures()
    for way in (subject.logits, subject.replay(images), subject.reference(images), subject.horizon_rescaled):
        assert torch.isnan(way(images)).all()


def test_a_model_without_equation_has_one_other_path():
    images = pictures()
    for model, most in ((resnet(), None), (node(t1=0.0), 0)):
        subject = subject_of_model(model)
        close(subject.gradient_paths["float64"](images), model(images), 1e-5)
        close(gradient(subject.gradient_paths["float64"], images), gradient(model, images), 1e-4)
        assert list(subject.gradient_paths) == ["float64"]
        assert subject.horizon_rescaled is subject.effort is None
        assert subject.max_steps == most  # no solve is no endless one
        assert subject.batch_independent
