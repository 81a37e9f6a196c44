"""Small pictures and a small model for the tests of subjects, and how their gradients are compared."""

import torch
from torch import Tensor, nn

import tiny
from nodestill.attacks import loss_gradient
from nodestill.experiments.members import build_model

PATHS = ["recompute", "direct", "adjoint", "tight", "fixed", "float64"]


def resnet() -> nn.Module:
    return build_model(tiny.teacher(tiny.SGD, width=2).model, 0, 3).eval().requires_grad_(False)


def pictures(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 8, 8)


def gradient(logits_fn, images: Tensor) -> Tensor:
    return loss_gradient(logits_fn, images, torch.arange(len(images)) % 3).gradient


def close(found: Tensor, expected: Tensor, share: float) -> None:
    """Compare up to a share of the size of what is expected."""
    assert float((found.double() - expected.double()).norm() / expected.double().norm()) < share
