"""Models as subjects: the ways to one function agree, and anybody's model is understood or refused in a sentence."""

import sys
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import tiny
from nodestill.attacks import Subject, loss_gradient
from nodestill.errors import DataError, InputError, NodestillError
from nodestill.experiments.members import build_model
from nodestill.experiments.subjects import subject_from_file, subject_of_model, subject_of_torchdiffeq
from nodestill.models import Activation, NeuralODEClassifier, Norm
from nodestill.ode import GradientMode, Method, Solver, StepControl

TIGHT = Solver(rtol=1e-6, atol=1e-6)
PATHS = ["recompute", "direct", "adjoint", "tight", "fixed", "float64"]


def node(solver: Solver = TIGHT, t1: float = 1.0, further: tuple[int, ...] = ()) -> NeuralODEClassifier:
    """A Neural ODE whose f is smooth, so that tight solves take few steps."""
    smooth = {"layers": 2, "norm": Norm.NONE, "activation": Activation.TANH, "channels": 4}
    settings = replace(tiny.student(tiny.SGD, None, t1).model, solver=solver, further=further, **smooth)
    return build_model(settings, 0, 3).eval().requires_grad_(False)


def resnet() -> nn.Module:
    return build_model(tiny.teacher(tiny.SGD, width=2).model, 0, 3).eval().requires_grad_(False)


def pictures(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 8, 8)


def gradient(logits_fn, images: Tensor) -> Tensor:
    return loss_gradient(logits_fn, images, torch.arange(len(images)) % 3).gradient


def close(found: Tensor, expected: Tensor, share: float) -> None:
    """Compare up to a share of the size of what is expected."""
    assert float((found.double() - expected.double()).norm() / expected.double().norm()) < share


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


NEIGHBOUR = "WIDTH = 4\n"
USERS = """
import torch
from torch import nn
from torchdiffeq import odeint, odeint_adjoint
from nodestill.attacks import Subject
from neighbour_of_a_test import WIDTH


class Dynamics(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(WIDTH + 1, WIDTH, 3, padding=1)

    def forward(self, t, y):
        return 3 * torch.tanh(self.conv(torch.cat([t.expand(len(y), 1, *y.shape[2:]), y], 1)))


class Net(nn.Module):
    def __init__(self, tolerance=1e-5, limit=None, call="odeint"):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.f, self.head = nn.Conv2d(3, WIDTH, 3, stride=2), Dynamics(), nn.Linear(WIDTH, 3)
        self.tolerances = {"rtol": tolerance, "atol": tolerance}
        self.options, self.call = None if limit is None else {"max_num_steps": limit}, call
        self.dropout = nn.Dropout(0.5)

    def forward(self, images):
        times = torch.tensor([0.0, 2.0]).to(images)
        y0 = self.stem(images)
        y = globals()[self.call](self.f, y0, times, method="dopri5", options=self.options, **self.tolerances)[-1]
        return self.head(self.dropout(y.tanh().mean((2, 3))))


def loose():
    return Net(1e-2)


def limited():
    return Net(limit=500)


def adjoint():
    return Net(call="odeint_adjoint")


def hopeless():
    return Net(limit=1)


def needs(depth):
    return Net()


def subject():
    return Subject(Net().eval())


def text():
    return "net"


class Held(Net):
    def __init__(self):
        super().__init__()
        self.solve = odeint

    def forward(self, images):
        return self.head(self.solve(self.f, self.stem(images), torch.tensor([0.0, 1.0]))[-1].mean((2, 3)))


net = Net()
plain = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
features = nn.Conv2d(3, 4, 3)
number = 3
"""


@pytest.fixture
def users(tmp_path):
    """A file as a user may have written it, with a neighbour that it imports."""
    pytest.importorskip("torchdiffeq")
    (tmp_path / "neighbour_of_a_test.py").write_text(NEIGHBOUR)
    (tmp_path / "model.py").write_text(USERS)
    yield str(tmp_path / "model.py")
    sys.modules.pop("neighbour_of_a_test", None)


@pytest.mark.parity
@pytest.mark.parametrize("name", ["net", "Net", "adjoint"])
def test_a_model_that_calls_torchdiffeq_is_scored_as_it_is_and_differentiated_by_ours(users, name):
    path = list(sys.path)
    subject, images = subject_from_file(f"{users}:{name}", pictures()), pictures()
    model = subject.module
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert sys.path == path
    assert list(subject.gradient_paths) == ["autograd", "adjoint", "exact", "tight", "fixed"]
    assert not subject.batch_independent
    logits, true = subject.logits(images), gradient(model.double(), images.double())
    model.float()
    assert torch.equal(logits, model(images))
    for name, way in subject.gradient_paths.items():
        close(way(images), logits, 1e-3)
        close(gradient(way, images), true, 5e-2)
        assert torch.equal(way(images), logits) == (name == "autograd")


@pytest.mark.parity
def test_the_evaluations_of_a_model_that_calls_torchdiffeq_are_counted(users):
    subject, images = subject_from_file(f"{users}:net", pictures()), pictures()
    calls = []
    subject.module.f.register_forward_hook(lambda *_: calls.append(1))
    counts = subject.evaluations(images)
    assert counts.tolist() == [len(calls)] * 3
    calls.clear()
    with torch.no_grad():
        subject.logits(images)
    assert abs(len(calls) - int(counts[0])) <= 12  # two steps
    assert bool((subject.effort(images) > 0).all())
    uphill = loss_gradient(subject.effort, images, torch.zeros(3, dtype=torch.int64), lambda error, _: error[:, 0]).gradient
    assert bool((subject.effort(images + 1e-3 * uphill.sign()) > subject.effort(images)).all())


@pytest.mark.parity
def test_a_limit_on_the_steps_is_seen(users):
    assert subject_from_file(f"{users}:net", pictures()).max_steps is None
    assert subject_from_file(f"{users}:limited", pictures()).max_steps == 500


@pytest.mark.parity
def test_the_images_of_a_batch_are_coupled_as_the_subject_says(users):
    subject, images = subject_from_file(f"{users}:loose", pictures()), pictures(6)
    images[1:] *= 0.2
    with torch.no_grad():
        gap = (subject.logits(images)[:1] - subject.logits(images[:1])).abs().max()
    assert gap > 1e-6
    assert not subject.batch_independent


@pytest.mark.parity
def test_where_torchdiffeq_gives_up_the_batch_is_not_a_number(users):
    subject, images = subject_from_file(f"{users}:hopeless", pictures()), pictures()
    with pytest.raises(AssertionError):
        subject.module(images)
    assert torch.isnan(subject.logits(images)).all()
    assert loss_gradient(subject.logits, images, torch.zeros(3, dtype=torch.int64)).bad.all()


@pytest.mark.parity
def test_subject_of_torchdiffeq_takes_a_module(users):
    model = subject_from_file(f"{users}:net", pictures()).module
    assert subject_of_torchdiffeq(model).max_steps is None  # on grey images of its own
    assert subject_of_torchdiffeq(model, pictures()).module is model
    with pytest.raises(InputError, match="made no call of torchdiffeq"):
        subject_of_torchdiffeq(resnet(), pictures())


def test_other_models_from_a_file(users, tmp_path):
    plain = subject_from_file(f"{users}:plain", pictures())
    assert plain == Subject(plain.module, module=plain.module)
    assert subject_from_file(f"{users}:subject").gradient_paths == {}
    (tmp_path / "node.py").write_text(
        "from torch import nn\nfrom nodestill.models import NeuralODEClassifier\nfrom nodestill.ode import Solver\n"
        "class F(nn.Conv2d):\n    def forward(self, t, y):\n        return super().forward(y)\n"
        "head = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))\n"
        "net = NeuralODEClassifier(nn.Identity(), F(3, 3, 3, padding=1), head, t1=1.0, solver=Solver())\n"
    )
    subject = subject_from_file(f"{tmp_path / 'node.py'}:net", pictures())
    assert list(subject.gradient_paths) == PATHS
    assert not any(parameter.requires_grad for parameter in subject.module.parameters())


REFUSED = {
    "names no model": "{file}",
    "There is no file": "{file}.old:net",
    r"has no 'nett'. It has: Dynamics, Net, .*net, plain": "{file}:nett",
    "is a int, expected": "{file}:number",
    "is a str, expected": "{file}:text",
    r"TypeError.*without arguments": "{file}:needs",
    r"must return logits of shape \(batch, classes\), got shape \(2, 4, 30, 30\)": "{file}:features",
    r"fails on images of shape \(2, 3, 32, 32\): RuntimeError": "{file}:plain",
    "past the redirect": "{file}:Held",
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_no_model_is_refused(users, message):
    with pytest.raises(NodestillError, match=message):
        subject_from_file(REFUSED[message].format(file=users))


@pytest.mark.parametrize("line", ["import nothing_of_this_name", "raise SystemExit(2)", "def broken(:"])
def test_a_file_that_cannot_be_run_is_refused(tmp_path, line):
    (tmp_path / "broken.py").write_text(line)
    before = set(sys.modules)
    with pytest.raises(DataError, match="cannot be run"):
        subject_from_file(f"{tmp_path / 'broken.py'}:net")
    assert set(sys.modules) == before


def test_a_file_that_is_no_python_is_refused(tmp_path):
    (tmp_path / "weights.pt").write_text("")
    with pytest.raises(DataError, match="no Python file"):
        subject_from_file(f"{tmp_path / 'weights.pt'}:net")
