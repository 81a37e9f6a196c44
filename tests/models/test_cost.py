"""Costs against counts made by hand."""

import torch
from torch import nn

from nodestill.models import (
    Activation,
    ConvDynamics,
    NeuralODEClassifier,
    Norm,
    Stem,
    classification_head,
    discrete_twin,
    forward_macs,
    macs,
    node_classifier,
    parameter_count,
    resnet,
)
from nodestill.ode import Method, Solver


def test_parameters_of_the_paper_sized_dynamics():
    f = ConvDynamics(512, norm=Norm.GROUP, activation=Activation.RELU, t1=1.0)
    assert parameter_count(f) == 4 * (512 * 513 * 9 + 512 + 2 * 512)


def test_macs_of_resnet_20():
    stages = [16 * 16 * 9 * 1024 * 6, 32 * 32 * 9 * 256 * 5 + 16 * 32 * 9 * 256, 64 * 64 * 9 * 64 * 5 + 32 * 64 * 9 * 64]
    expected = 3 * 16 * 9 * 1024 + sum(stages) + 640
    assert macs(resnet(20, 10), torch.zeros(2, 3, 32, 32)) == expected
    assert abs(expected / 40.8e6 - 1) < 0.01  # as published, which counts a little more


def test_macs_of_one_evaluation():
    f = ConvDynamics(512, norm=Norm.NONE, activation=Activation.RELU, t1=1.0)
    assert macs(f, torch.zeros(1, 1, 1, 1), torch.zeros(1, 512, 8, 8)) == 4 * 512 * 512 * 9 * 64


def test_macs_of_grouped_strided_convolutions():
    assert macs(nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), torch.zeros(1, 4, 8, 8)) == 6 * 16 * 2 * 9


def test_counting_leaves_the_model_as_it_was():
    model = resnet(8, 10, width=4).train()
    model.head.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    macs(model, torch.rand(2, 3, 8, 8))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert not model.head.training
    assert not any(module._forward_hooks for module in model.modules())


def test_macs_of_a_student_add_up():
    dynamics = ConvDynamics(32, layers=2, norm=Norm.GROUP, activation=Activation.RELU, t1=1.0)
    model = node_classifier(Stem.DOWN4, [dynamics], solver=Solver(), num_classes=10)
    cost = forward_macs(model, (3, 32, 32), [20.5])
    assert cost.encoders == 3 * 32 * 9 * 256 + 32 * 32 * 9 * 64
    assert cost.per_evaluation == (2 * 32 * 32 * 9 * 64,)
    assert cost.head == 320
    assert cost.dynamics == 20.5 * cost.per_evaluation[0]
    assert cost.total == cost.encoders + cost.dynamics + cost.head


def test_counting_leaves_a_training_encoder_as_it_is():
    dynamics = ConvDynamics(4, layers=1, norm=Norm.NONE, activation=Activation.RELU, t1=1.0)
    encoder = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4))
    model = NeuralODEClassifier(encoder, dynamics, classification_head(4, 2), t1=1.0, solver=Solver()).train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    forward_macs(model, (3, 1, 1), [2.0])  # batch statistics of a single value would be refused
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert all(module.training for module in model.modules())


def test_macs_of_further_equations_and_of_the_discrete_twin():
    def f(channels):
        return ConvDynamics(channels, layers=2, norm=Norm.NONE, activation=Activation.RELU, t1=1.0)

    midpoint = Solver(Method.MIDPOINT, steps=2)  # four evaluations
    model = node_classifier(Stem.FLAT, [f(8), f(16)], solver=midpoint, num_classes=10)
    cost = forward_macs(model, (3, 16, 16), [4, 4])
    assert cost.encoders == 3 * 8 * 9 * 256 + 8 * 16 * 9 * 256
    assert cost.per_evaluation == (2 * 8 * 8 * 9 * 256, 2 * 16 * 16 * 9 * 64)
    twin = discrete_twin(Stem.FLAT, [[f(8) for _ in range(4)], [f(16) for _ in range(4)]], num_classes=10)
    assert macs(twin, torch.zeros(1, 3, 16, 16)) == cost.total
