"""The command `nodestill`, in a process of its own or in this one, and a tiny experiment that it made."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import tiny
from nodestill.cli import main

OVERRIDES = [*tiny.OVERRIDES.split(), "--name", "tiny", "--threads", "1"]
COMMAND = [sys.executable, "-W", "error", "-m", "nodestill"]


def launched(*arguments: object, **environment: str) -> subprocess.Popen:
    """Start the command in a process of its own that Ctrl-C reaches, as from a shell."""
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def finished(*arguments: object, **environment: str) -> tuple[int, str, str]:
    """Return code, stdout and stderr of the command."""
    process = launched(*arguments, **environment)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def called(capsys, *arguments: object) -> tuple[int, str, str]:
    """The same, in this process."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return int(left.value.code or 0), out, err


def processor_seconds() -> float:
    """Time that processes which have ended spent computing: what they take on an idle machine, however busy this one is."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def made_by_the_command(root: Path) -> Path:
    """Run a tiny experiment in a process of its own and return its store."""
    started = processor_seconds()
    code, out, err = finished("run", "demo", *OVERRIDES, "--store", root)
    assert (code, err) == (0, "")
    assert f"Report: {root / 'tiny' / 'report.html'}\n" in out
    assert processor_seconds() - started < 20
    return root
