"""What a result was measured with: versions, device, threads, state of the code."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

from nodestill import __version__


def environment(device: torch.device) -> dict[str, object]:
    """Return versions, device and code state as plain values."""
    return {
        "nodestill": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "tf32": torch.backends.cudnn.allow_tf32 if device.type == "cuda" else False,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def _processor() -> str:
    """Return the processor's model name."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.processor()


_CODE = (":(top,glob)**/*.py", ":(top)pyproject.toml", ":(top)constraints.txt")


def _commit() -> str | None:
    """Return the commit of the source tree, with + if code or pins were changed; None outside a repository.

    Rows and pages may have changed: they are written between one run and the next.
    """
    head = _git("rev-parse", "--short=10", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", *_CODE)
    return None if head is None or changed is None else f"{head}{'+' if changed else ''}"


def _git(*arguments: str) -> str | None:
    """Return what git says of the repository that this file is in; None if it is in none."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
