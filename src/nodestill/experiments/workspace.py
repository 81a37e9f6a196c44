"""Where runs are kept, where data come from, and what computes."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from nodestill.experiments.processes import Watch, silent
from nodestill.experiments.store import Store


class Accelerator(Enum):
    """Fabric's names of devices."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"


@dataclass(frozen=True)
class Workspace:
    """Where runs are kept, where data come from, and what computes.

    Args:
        store: The folder of run folders.
        data_root: Folder of data sets; None for the bundled digits or the hub.
        accelerator: Fabric's name of the device: cpu, cuda, mps, or auto.
        devices: Processes that share a training, one per device.
        watch: Told of progress as (task, done, total, note); may raise `TimeUp`.
    """

    store: Store
    data_root: Path | None = None
    accelerator: str = "auto"
    devices: int = 1
    watch: Watch = silent
