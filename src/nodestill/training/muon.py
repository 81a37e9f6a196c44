"""Muon: momentum whose step is made orthogonal, for convolutions; Nesterov momentum for all other parameters.

Biases, norms and linear layers may have a higher rate: their gradient is small beside that of an orthogonal step's kernels.

The weights of a convolution are a matrix from patches to channels. Its momentum is replaced by a matrix of about equal
singular values, so that few directions are learned slowly only because their gradient is small.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

_QUINTIC = (3.4445, -4.7750, 2.0315)
_ROUNDS = 3


class Muon(torch.optim.Optimizer):
    """Muon for convolutions, SGD with Nesterov momentum for the others.

    Args:
        convolutions: Weights of convolutions, of four dimensions.
        others: All other parameters.
        lr: Rate, > 0; the singular values of an orthogonal step are about max(1, sqrt(rows / columns)) times it.
        momentum: Of both, in [0, 1).
        weight_decay: Decoupled, of convolutions alone.
        vector_rate: Rate of biases, norms and linear layers over `lr`, > 0.
        normalized: Weights of convolutions whose scale means nothing, because a normalisation follows: none decays, and each is
            brought to one size before every step, so that `lr` over that size is how far a step turns it.
        filter_norm: That size: the root mean square of the norms of its filters, > 0 if there are such weights.

    Source:
        Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; quintic iteration and scale as there, in
        three rounds instead of five, and weights of one size, both as in Jordan's airbench94_muon, which has `filter_norm` 1.
        torch.optim.Muon is the same for matrices and refuses convolutions.
    """

    def __init__(
        self,
        convolutions: Sequence[nn.Parameter],
        others: Sequence[nn.Parameter],
        lr: float,
        momentum: float,
        weight_decay: float,
        vector_rate: float = 1.0,
        normalized: Sequence[nn.Parameter] = (),
        filter_norm: float = 0.0,
    ) -> None:
        groups: list[dict[str, Any]] = [
            {"params": list(convolutions), "orthogonal": True},
            {"params": [one for one in others if one.dim() > 2]},
            {"params": [one for one in others if one.dim() <= 2], "rate": vector_rate},
            {"params": list(normalized), "orthogonal": True, "filter_norm": filter_norm, "weight_decay": 0.0},
        ]
        usual = {"orthogonal": False, "rate": 1.0, "filter_norm": 0.0}
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, **usual}
        super().__init__([group for group in groups if group["params"]], defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no line search, so no closure
        """Take one step. There is no line search, so `closure` must be none."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)

    def _move(self, parameter: nn.Parameter, group: dict[str, Any]) -> None:
        state, momentum, lr = self.state[parameter], group["momentum"], group["rate"] * group["lr"]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].mul_(momentum).add_(parameter.grad)
        update = parameter.grad + momentum * state["momentum"]
        if group["filter_norm"]:
            parameter.mul_(group["filter_norm"] * len(parameter) ** 0.5 / parameter.norm())
        if group["orthogonal"]:
            parameter.mul_(1 - lr * group["weight_decay"])
            update = orthogonal(update)
        parameter.add_(update, alpha=-lr)


def orthogonal(update: Tensor) -> Tensor:
    """Return the update of a convolution with its singular values brought towards max(1, sqrt(rows / columns)).

    In three rounds those below a twentieth of the norm stay smaller.
    """
    matrix = update.permute(0, 2, 3, 1).flatten(1)  # as it lies in memory, channels-last
    rows, columns = matrix.shape
    x = matrix.t() if rows > columns else matrix
    x = (x / (x.norm() + 1e-7)).bfloat16()  # as its authors do: faster where there are such units, and near is enough
    a, b, c = _QUINTIC
    for _ in range(_ROUNDS):
        gram = x @ x.t()
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    x = (x.t() if rows > columns else x).to(update.dtype) * max(1.0, rows / columns) ** 0.5
    return x.reshape(len(update), *update.shape[2:], -1).permute(0, 3, 1, 2)
