"""Files that are there whole or not at all, whatever ends the process."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STOPS = (signal.SIGINT, signal.SIGTERM)


def write_whole(path: Path, content: bytes) -> None:
    """Put a file in place of another, or of none, in one moment; its folder is made if it is not there.

    It is written under a temporary name, brought to the disk and renamed. Ctrl-C and SIGTERM wait for that; a kill leaves the
    old file.

    Args:
        path: The file.
        content: All of it.

    Raises:
        OSError: What the system says; no temporary file stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _signals_wait():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            if path.parent.is_dir():
                temporary.unlink(missing_ok=True)
            raise


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM until the block is over; only the main thread can, only it is stopped. Failure goes first."""
    here = threading.current_thread() is threading.main_thread()
    ours = [number for number in _STOPS if here and signal.getsignal(number) is not None]
    came: list[int] = []
    usual = [signal.signal(number, lambda number, _: came.append(number)) for number in ours]
    try:
        yield
    finally:
        for number, handler in zip(ours, usual, strict=True):
            signal.signal(number, handler)
    for late in sorted(set(came), reverse=True):  # SIGTERM first: a process that ignores Ctrl-C still hears it
        signal.raise_signal(late)
