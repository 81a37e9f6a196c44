"""What stands around the equations of a SMOOTH model: kernels that pass on, norms without a scale, a head that averages."""

import torch
import torch.nn.functional as F
from torch import nn

from nodestill.models import Activation, ConvDynamics, Norm, Pooling, Stem, node_classifier
from nodestill.models.stem import transition
from nodestill.ode import Method, Solver


def smooth_model():
    dynamics = [
        ConvDynamics(c, layers=1, norm=Norm.NONE, activation=Activation.RELU, t1=1.0, zero_last=True, pre_activation=True)
        for c in (4, 6)
    ]
    return node_classifier(Stem.SMOOTH, dynamics, solver=Solver(Method.MIDPOINT, steps=1), num_classes=3, pooling=Pooling.MAX)


def test_a_smooth_transition_starts_by_passing_its_channels_on(generator):
    conv = transition(4, 6, Stem.SMOOTH)[0]
    x = torch.randn((2, 4, 8, 8), generator=generator)
    torch.testing.assert_close(conv(x)[:, :4], x)
    assert float(conv.weight.detach()[4:].abs().min()) > 0


def test_norms_of_a_smooth_model_learn_a_bias_and_no_scale():
    norms = [layer for layer in smooth_model().modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(norms) == 4  # behind two transitions and two equations
    assert not any(norm.weight.requires_grad for norm in norms)
    assert all(norm.bias.requires_grad for norm in norms)


def test_a_smooth_head_normalises_the_end_of_the_last_equation_and_averages_over_channels(generator):
    head = smooth_model().eval().head
    norm, linear = head[0], head[-1]
    with torch.no_grad():
        for values in (norm.running_mean, norm.running_var, norm.bias):
            values.copy_(0.5 + torch.rand(6, generator=generator))
    y1 = torch.randn((5, 6, 7, 7), generator=generator)
    shift, scale, bias = (part.view(6, 1, 1) for part in (norm.running_mean, norm.running_var.sqrt(), norm.bias))
    expected = F.gelu((y1 - shift) / scale + bias, approximate="tanh").amax((2, 3)) @ linear.weight.T / 6
    torch.testing.assert_close(head(y1), expected, rtol=1e-4, atol=1e-4)
    assert linear.bias is None


def test_a_smooth_model_normalises_the_end_of_an_equation_before_its_transition():
    (_, first), (second, _) = smooth_model().equations
    assert [type(layer) for layer in second[:3]] == [nn.BatchNorm2d, nn.GELU, nn.Conv2d]
    assert second[0].num_features == first.channels
