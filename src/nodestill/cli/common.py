"""Options that every command has which computes, and the workspace that they describe."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, Token

from nodestill.errors import InputError
from nodestill.terminal import seconds_of, watching


def _whole(_: type, tokens: Sequence[Token]) -> int:
    """Return the whole number that an option is given; Cyclopts would round 1.5."""
    keyword, value = tokens[0].keyword, tokens[0].value
    try:
        return int(value)
    except ValueError:
        raise InputError(f"{keyword} must be a whole number, got {value!r}.") from None


Whole = Annotated[int, Parameter(converter=_whole)]


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """Options of every command that computes.

    Parameters
    ----------
    store
        Folder that keeps runs; a finished part is never computed again.
    data
        Folder of data sets, as DIR/cifar10/{train,test}.parquet. Without it: the hub, downloaded once.
    device
        cpu, cuda, mps or auto.
    devices
        Processes that share a training, one per device.
    threads
        CPU threads; all cores if not given.
    max_time
        Stop after this time, such as 20m or 2h20m; the same command goes on later.
    debug
        Show tracebacks.
    """

    store: Path = Path("runs")
    data: Path | None = None
    device: str = "auto"
    devices: Whole = 1
    threads: Whole | None = None
    max_time: str | None = None
    debug: bool = False


DEFAULTS = Common()


@contextmanager
def watched_workspace(common: Common) -> Iterator[Any]:
    """Open the workspace that the options describe, with a view of its progress."""
    workspace = quiet_workspace(common)
    limit = None if common.max_time is None else seconds_of(common.max_time)
    with watching(limit) as watch:
        yield replace(workspace, watch=watch)


def quiet_workspace(common: Common) -> Any:
    """Return the workspace that the options describe, after setting the threads."""
    import torch

    from nodestill.experiments import Store, Workspace
    from nodestill.experiments.plain import from_plain
    from nodestill.experiments.workspace import Accelerator

    if common.threads is not None:
        if common.threads < 1:
            raise InputError(f"--threads must be at least 1, got {common.threads}. Leave it out to use all cores.")
        torch.set_num_threads(common.threads)
    if common.devices < 1:
        raise InputError(f"--devices must be at least 1, got {common.devices}. Leave it out for one.")
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32, on a GPU too
    accelerator = from_plain(Accelerator, common.device, "--device")
    return Workspace(Store(common.store), common.data, accelerator.value, common.devices)
