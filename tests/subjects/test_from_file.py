"""Anybody's model, from a file: understood, with the gradients of ours if it calls torchdiffeq, or refused in a sentence."""

import sys

import pytest
import torch

from nodestill.attacks import Subject, loss_gradient
from nodestill.errors import DataError, InputError, NodestillError
from nodestill.subjects.from_file import subject_from_file
from nodestill.subjects.of_torchdiffeq import subject_of_torchdiffeq
from subjects.small_subjects import PATHS, close, gradient, pictures, resnet

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
    subject.module.double()  # the estimates are 1e-5, of which rounding in float32 is a part
    images, labels = images.double(), torch.zeros(3, dtype=torch.int64)
    uphill = loss_gradient(subject.effort, images, labels, lambda error, _: error[:, 0]).gradient
    assert bool((subject.effort(images + 1e-4 * uphill.sign()) > subject.effort(images)).all())


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
