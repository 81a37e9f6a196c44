"""One process at a time in a folder: two commands on the same model would write each other's rows twice."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nodestill.errors import DataError, InputError


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder until the block ends, or the process, however that comes; no file is left.

    Where the system or the file system has no such locks, nothing is held.

    Args:
        folder: It is made if it is not there.

    Raises:
        InputError: If another process holds it, or this one already does.
        DataError: If it cannot be made or opened.
    """
    handle = _opened(folder)
    try:
        if not _held(handle):
            raise InputError(f"Another command works in {folder}. Wait until it is done, or stop it; then give this one again.")
        yield
    finally:
        os.close(handle)


def require_folder(folder: Path) -> None:
    """Refuse a folder that can never be made, for a file is in its way; nothing is made.

    Raises:
        DataError: If it, or what it would lie in, is no folder.
    """
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not there.is_dir():
        raise DataError(f"Cannot work in {folder}: {there} is no folder. Choose another --store.")


def _opened(folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise DataError(f"Cannot work in {folder}: {error.strerror or error}. Choose another --store.") from None


def _held(handle: int) -> bool:
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return True
    return True
