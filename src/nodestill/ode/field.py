"""f as a step sees it: one time per image, in the precision asked for, in no caller's autocast, compiled if asked."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache, wraps
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor, nn

from nodestill.errors import InputError
from nodestill.ode.rounding import CompensatingStage
from nodestill.precision import Precision

_MOST_GRAPHS = 128  # of each function, in a process; what comes after them runs uncompiled

State = Float[Tensor, "batch *state"]
PerImage = Float64[Tensor, " batch"]


class Field(NamedTuple):
    """The right-hand side as a step sees it: f(t, y) with one time per image, in the precision asked for."""

    dynamics: nn.Module
    precision: Precision
    compiled: bool = False  # whether steps that keep nothing, and evaluations that are kept, run as compiled graphs

    def __call__(self, t: PerImage, y: State, share: float | None = None) -> Tensor:
        """Evaluate f; in bfloat16, a stage that has a `share` of its step to compensate has weights of its own."""
        time = like_state(t, y)
        before = _versions(time, y)
        try:
            slope = self._called()(self, time, y, share)
        except RuntimeError as error:
            if "Boolean value of Tensor" in str(error):
                raise InputError(
                    "f branched on a tensor, as `if t < 0.5` does; expected no such branch, for t and y have an entry for each "
                    "element of the batch. Write torch.where(t < 0.5, a, b)."
                ) from error
            raise
        if _versions(time, y) != before:
            raise InputError(
                "f changed its t or y in place, which are the solver's and the caller's own; expected them left alone. Take "
                "operations that return a new tensor: nn.ReLU() for nn.ReLU(inplace=True), y + 1 for y += 1."
            )
        if not isinstance(slope, Tensor):
            raise InputError(f"f must return a tensor of the shape of y, got {type(slope).__name__}. Return the slope alone.")
        if slope.shape != y.shape:
            raise InputError(
                f"f must return the shape of y, {tuple(y.shape)}, got {tuple(slope.shape)}. Make the last layer of f as wide "
                "as the state; f is called as f(t, y), with as many elements of the batch as are still on their way."
            )
        return slope

    @property
    def uncompiled(self) -> "Field":
        """The same without graphs."""
        return self._replace(compiled=False)

    def _called(self) -> Callable:
        wanted = self.compiled and torch.is_grad_enabled() and not torch.compiler.is_compiling()
        return _graph_of(_slope) if wanted else _slope


def _slope(field: Field, t: Tensor, y: State, share: float | None) -> Any:
    low, cached = field.precision is Precision.BFLOAT16, not torch.is_grad_enabled()
    stage = nullcontext() if share is None or not low else CompensatingStage(share)
    with torch.autocast(y.device.type, torch.bfloat16, enabled=low, cache_enabled=cached), stage:
        return field.dynamics(t, y)


def _versions(*tensors: Tensor) -> list[int]:
    """Return how often each tensor was written to, where that is kept."""
    if torch.compiler.is_compiling():
        return []
    return [tensor._version for tensor in tensors if not tensor.is_inference()]


@contextmanager
def shared_casts(device: torch.device) -> Iterator[None]:
    """Let the evaluations of f without gradient in this block share one conversion of each weight to bfloat16.

    The conversions are forgotten at the end: made without gradient, they must not meet one who wants a gradient. The
    block itself computes in the dtypes it is given, whatever autocast its caller is in.
    """
    try:
        with torch.autocast(device.type, enabled=False):  # autocast forgets its conversions where the outermost block ends
            yield
    finally:
        torch.clear_autocast_cache()


def without_autocast(backward: Callable) -> Callable:
    """Make a backward pass compute in the dtypes it is given, like its forward pass, whatever autocast its caller is in."""

    @wraps(backward)
    def run(ctx: Any, *gradients: Tensor | None) -> Any:
        with shared_casts(ctx.device):
            return backward(ctx, *gradients)

    return run


@lru_cache
def _graph_of(function: Callable) -> Callable:
    """Return a function compiled, once for each shape and setting; by itself PyTorch gives up after eight of them."""
    graph = torch.compile(function)

    @wraps(function)
    def run(*arguments: Any, **options: Any) -> Any:
        config = torch._dynamo.config
        with config.patch(cache_size_limit=max(_MOST_GRAPHS, config.cache_size_limit)):
            return graph(*arguments, **options)

    return run


def maybe_compiled(function: Callable, field: Field, *, keep: bool) -> Callable:
    """Return a step as compiled graphs, one for each shape and setting, if the field asks for them.

    With `keep` it stays as it is, and each evaluation becomes a graph with a derivative of its own: the derivative of a step is
    not automatic differentiation's. It also stays inside a graph that is being compiled, of which it becomes a part.
    """
    wanted = field.compiled and not keep and not torch.compiler.is_compiling()
    return _graph_of(function) if wanted else function


def like_state(value: Shaped[Tensor, " batch"], y: State) -> Tensor:
    """Return one value per image in the dtype of y and with as many dimensions, so that it broadcasts against y."""
    return value.to(y.dtype).reshape(-1, *[1] * (y.dim() - 1))
