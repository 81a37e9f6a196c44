"""Muon against PyTorch's, which does the same for matrices, and against Nesterov's momentum for all else."""

import pytest
import torch
from torch import nn

from nodestill.errors import RecipeError
from nodestill.models import Activation, ConvDynamics, Norm
from nodestill.models.stem import transition
from nodestill.training import Muon, Optimizer, Training
from nodestill.training.muon import orthogonal
from nodestill.training.schedule import build_optimizer


def as_matrix(kernel: torch.Tensor) -> torch.Tensor:
    return kernel.detach().permute(0, 2, 3, 1).flatten(1).clone()


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this PyTorch has no Muon to compare with")
@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (40, 2, 3, 3)])
def test_a_convolution_moves_as_its_matrix_does_in_torch(shape):
    conv = nn.Parameter(torch.zeros(shape).to(memory_format=torch.channels_last))
    matrix = nn.Parameter(as_matrix(conv))
    ours = Muon([conv], [], lr=0.1, momentum=0.8, weight_decay=0.0)
    theirs = torch.optim.Muon(
        [matrix], lr=0.1, momentum=0.8, weight_decay=0.0, nesterov=True, adjust_lr_fn="original", ns_steps=3
    )
    for _ in range(3):
        conv.grad = torch.randn(shape)
        matrix.grad = as_matrix(conv.grad)
        ours.step()
        theirs.step()
    gap = as_matrix(conv) - matrix.detach()
    assert float(gap.norm()) < 0.03 * float(matrix.detach().norm())  # theirs iterates in bfloat16


def test_decay_is_decoupled_and_of_convolutions_alone():
    conv, vector = nn.Parameter(torch.ones(2, 2, 1, 1)), nn.Parameter(torch.ones(3))
    optimizer = Muon([conv], [vector], lr=0.1, momentum=0.0, weight_decay=0.5)
    conv.grad, vector.grad = torch.zeros_like(conv), torch.zeros_like(vector)
    optimizer.step()
    torch.testing.assert_close(conv.detach(), torch.full_like(conv, 0.95))
    assert torch.equal(vector.detach(), torch.ones(3))


def test_what_is_not_a_convolution_moves_by_nesterov():
    one, other = (nn.Parameter(torch.tensor([1.0, -2.0, 3.0])) for _ in range(2))
    ours = Muon([], [one], lr=0.1, momentum=0.9, weight_decay=0.3)
    theirs = torch.optim.SGD([other], lr=0.1, momentum=0.9, nesterov=True)
    for _ in range(4):
        one.grad = other.grad = torch.randn(3)
        ours.step()
        theirs.step()
    torch.testing.assert_close(one, other)


def test_an_orthogonal_update_has_equal_singular_values():
    for rows, columns in ((8, 3), (100, 2)):
        update = torch.randn(rows, columns, 3, 3)
        update[0] *= 100  # one direction dwarfs the others
        values = torch.linalg.svdvals(as_matrix(orthogonal(update))) / max(1.0, rows / (9 * columns)) ** 0.5
        assert float(values.min()) > 0.2  # of a hundredth of the largest, in three rounds
        assert float(values.max()) < 1.3


def test_kernels_of_layers_are_orthogonalised_and_time_kernels_are_not():
    f = ConvDynamics(4, layers=2, norm=Norm.GROUP, activation=Activation.RELU, t1=1.0)
    plan = Training(Optimizer.MUON, 0.1, 1, vector_rate=8.0)
    orthogonalised, others, vectors = build_optimizer(f, plan).param_groups
    assert [group["orthogonal"] for group in (orthogonalised, others, vectors)] == [True, False, False]
    assert {id(p) for p in orthogonalised["params"]} == {id(conv.weight) for conv in f.convs}
    assert [p is f.time_kernels for p in others["params"]] == [True]
    assert {id(p) for p in vectors["params"]} == {id(p) for p in f.parameters() if p.dim() == 1}


def test_biases_norms_and_linear_layers_may_have_a_higher_rate_than_time_kernels():
    time_kernels, linear, bias = (nn.Parameter(torch.zeros(shape)) for shape in ((1, 2, 3, 3), (2, 2), (2,)))
    for one in (time_kernels, linear, bias):
        one.grad = torch.ones_like(one)
    Muon([], [time_kernels, linear, bias], 0.1, 0.0, 0.0, vector_rate=8.0).step()
    torch.testing.assert_close(time_kernels.detach(), torch.full_like(time_kernels, -0.1))
    torch.testing.assert_close(linear.detach(), torch.full_like(linear, -0.8))
    torch.testing.assert_close(bias.detach(), torch.full_like(bias, -0.8))


def test_a_kernel_in_front_of_a_norm_has_one_size_before_every_step_and_does_not_decay():
    kernel = nn.Parameter(5 * torch.randn(6, 2, 3, 3))
    optimizer = Muon([], [], 0.1, 0.0, weight_decay=0.5, normalized=[kernel], filter_norm=0.4)
    kernel.grad = torch.zeros_like(kernel)
    optimizer.step()
    assert float(kernel.detach().square().sum((1, 2, 3)).mean()) == pytest.approx(0.4**2)  # and no decay after it
    before = kernel.detach().clone()
    kernel.grad = torch.randn_like(kernel)
    optimizer.step()
    torch.testing.assert_close(kernel.detach(), before - 0.1 * orthogonal(kernel.grad))


@pytest.mark.parametrize("filter_norm", [0.0, 0.4])
def test_only_convolutions_in_front_of_a_norm_are_scaled(filter_norm):
    f = ConvDynamics(4, layers=2, norm=Norm.NONE, activation=Activation.RELU, t1=1.0)
    before = transition(3, 4)
    model = nn.Sequential(before, f)
    optimizer = build_optimizer(model, Training(Optimizer.MUON, 0.1, 1, filter_norm=filter_norm))
    scaled = [p for group in optimizer.param_groups if group["filter_norm"] for p in group["params"]]
    assert [p is before[0].weight for p in scaled] == ([True] if filter_norm else [])
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))


@pytest.mark.parametrize("wrong", [{"filter_norm": -0.1}, {"optimizer": Optimizer.SGD, "filter_norm": 1.0}])
def test_a_filter_norm_that_means_nothing_is_refused(wrong):
    with pytest.raises(RecipeError, match="filter_norm"):
        Training(**{"optimizer": Optimizer.MUON, "lr": 0.1, "epochs": 1} | wrong)
