"""An adjoint gradient at a loose tolerance is caught by the check meant for it; the exact gradient of the same solve passes."""

from dataclasses import replace

import pytest
import torch

from nodestill.attacks.audit import QUICK, Verdict, audit, open_case
from nodestill.data import ImageSet
from nodestill.models import Activation, ConvDynamics, NeuralODEClassifier, Norm, Stem, node_classifier
from nodestill.ode import GradientMode, Solver
from nodestill.subjects.of_model import subject_of_model

HORIZON, TOLERANCE = 20.0, 1e-1


def model(mode: GradientMode) -> NeuralODEClassifier:
    torch.manual_seed(0)
    f = ConvDynamics(4, layers=2, norm=Norm.NONE, activation=Activation.TANH, t1=HORIZON)
    f.convs[-1].weight.data.mul_(0.3)
    solver = Solver(gradient=mode, rtol=TOLERANCE, atol=TOLERANCE)
    return node_classifier(Stem.FLAT, [f], solver=solver, num_classes=4).eval().requires_grad_(False)


@pytest.mark.parametrize(("mode", "verdict"), [(GradientMode.RECOMPUTE, Verdict.PASS), (GradientMode.ADJOINT, Verdict.FAIL)])
def test_the_quality_of_a_gradient_depends_on_its_mode(mode, verdict):
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(60, 200, (48, 3, 6, 6), generator=generator, dtype=torch.uint8)
    with torch.no_grad():
        labels = model(mode)(pixels.float() / 255).argmax(1)
    data = ImageSet("grey", "made by a test", pixels, labels, tuple("abcd"))
    case = open_case(subject_of_model(model(mode)), data, replace(QUICK, steps=8), 16, eps_255=2)
    (result,) = audit(case, ["gradient-quality"])
    assert result.verdict is verdict
    assert (result.details["cosine_median"] > 0.98) is (verdict is Verdict.PASS)
