"""Muon against PyTorch's, which does the same for matrices, and against Nesterov's momentum for all else."""

import torch
from torch import nn

from nodestill.training import Muon
from nodestill.training.muon import orthogonal


def test_a_convolution_moves_as_its_matrix_does_in_torch():
    for shape in ((6, 4, 3, 3), (40, 2, 3, 3)):
        conv = nn.Parameter(torch.randn(shape).to(memory_format=torch.channels_last))
        matrix = nn.Parameter(conv.detach().permute(0, 2, 3, 1).flatten(1).clone())
        ours = Muon([conv], lr=0.1, momentum=0.8, weight_decay=0.5)
        theirs = torch.optim.Muon([matrix], lr=0.1, momentum=0.8, weight_decay=0.5, nesterov=True, adjust_lr_fn="original")
        for _ in range(3):
            conv.grad = torch.randn(shape)
            matrix.grad = conv.grad.permute(0, 2, 3, 1).flatten(1).clone()
            ours.step()
            theirs.step()
        moved = conv.detach().permute(0, 2, 3, 1).flatten(1)
        torch.testing.assert_close(moved, matrix.detach(), rtol=0.05, atol=0.01)  # theirs iterates in bfloat16, and averages


def test_what_is_not_a_convolution_moves_by_nesterov():
    one, other = (nn.Parameter(torch.tensor([1.0, -2.0, 3.0])) for _ in range(2))
    ours = Muon([one], lr=0.1, momentum=0.9, weight_decay=0.3)
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
        found = orthogonal(update).permute(0, 2, 3, 1).flatten(1)
        values = torch.linalg.svdvals(found) / max(1.0, rows / (9 * columns)) ** 0.5
        assert float(values.min()) > 0.3
        assert float(values.max()) < 1.3
