"""Which loop a solve takes: steps of its own choice, or those given."""

from torch import Tensor

from nodestill.ode.field import shared_casts
from nodestill.ode.follow import follow
from nodestill.ode.march import march
from nodestill.ode.progress import Problem, Progress, Sizes
from nodestill.ode.trace import Steps


def travel(problem: Problem, sizes: Sizes | None, y0: Tensor, steps: Steps | None) -> Progress:
    """Solve with step sizes of its own choice, or with those given."""
    with shared_casts(y0.device):
        return march(problem, y0, steps) if sizes is None else follow(problem, y0, sizes, steps)
