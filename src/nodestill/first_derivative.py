"""For autograd functions whose backward pass has no derivative of its own."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from nodestill.errors import InputError


def first_derivative_only(backward: Callable) -> Callable:
    """Make a backward pass refuse create_graph=True, under which what it computes would silently count as constant.

    `torch.autograd.function.once_differentiable` refuses only where the gradient that arrives requires one itself: that of
    a sum does not.
    """

    @wraps(backward)
    def run(ctx: Any, *gradients: Tensor | None) -> Any:
        if torch.is_grad_enabled():  # in a backward pass: create_graph=True
            raise InputError(
                "A second derivative was asked for (create_graph=True), but solves and the layers of nodestill's f have first "
                "derivatives only. Leave out create_graph=True, or take differences of first derivatives."
            )
        return backward(ctx, *gradients)

    return run
