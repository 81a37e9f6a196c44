"""What stands around the equations of a SMOOTH model: kernels that pass on, norms without a scale, a head that averages."""

import torch
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
    norm, activation, pool, linear = smooth_model().eval().head
    y1 = torch.randn((5, 6, 7, 7), generator=generator)
    expected = activation(norm(y1)).amax((2, 3)) @ linear.weight.T / 6
    torch.testing.assert_close(linear(pool(activation(norm(y1)))), expected)
    assert linear.bias is None
