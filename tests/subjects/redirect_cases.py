"""Right-hand sides, initial states and times for the tests of the redirect."""

import torch
from torch import nn

TIMES = torch.tensor([0.2, 1.4], dtype=torch.float64)
TIGHT = {"rtol": 1e-9, "atol": 1e-9}


class Dynamics(nn.Module):
    """A right-hand side with weights that takes t as users do, and counts its calls."""

    def __init__(self, see=lambda t, y: torch.ones_like(y[:, :1]) * t, dtype=torch.float64):
        super().__init__()
        self.layer = nn.Linear(4, 3, dtype=dtype)
        self.see, self.calls = see, 0

    def forward(self, t, y):
        self.calls += 1
        turning = y.roll(1, 1) * torch.cos(y.norm(dim=1, keepdim=True))
        return torch.tanh(self.layer(torch.cat([self.see(t, y), y], 1))) + turning


def states(batch=4, dtype=torch.float64):
    """Initial states that would take steps of different sizes."""
    return torch.randn(batch, 3, dtype=dtype) * torch.logspace(-1, 0.7, batch, dtype=dtype)[:, None]
