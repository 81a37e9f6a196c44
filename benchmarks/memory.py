"""The peak of a process's memory during a call; Linux only."""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path


def peak_megabytes(work: Callable[[], object]) -> float:
    """Return by how much a call raises the process's resident memory at its highest, in MB.

    Memory that was freed before but not returned to the system would be used unseen, so it is returned first.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest so far
    before = _kilobytes("VmRSS")
    work()
    return (_kilobytes("VmHWM") - before) * 1024 / 1e6


def _kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
