"""Files that are there whole or not at all, whatever ends the process."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Put a file in place of another, or of none, in one moment; its folder is made if it is not there.

    It is written under a temporary name, brought to the disk and renamed. Ctrl-C waits for that; a kill leaves the old file.

    Args:
        path: The file.
        content: All of it.

    Raises:
        OSError: What the system says; no temporary file stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _ctrl_c_waits():
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
def _ctrl_c_waits() -> Iterator[None]:
    """Hold Ctrl-C until the block is over; only the main thread can, and only it is interrupted. A failure comes first."""
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is not None
    if not ours:
        yield
        return
    pressed: list[int] = []
    usual = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
    if pressed:
        signal.raise_signal(signal.SIGINT)
