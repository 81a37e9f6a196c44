"""python -m nodestill, and the entry point of the command."""

import signal
import sys
import time
from collections.abc import Callable

_AT_ONCE = 1.0  # seconds


def main() -> None:
    """Run the command; interrupted while it is still loading it ends as quietly as later."""
    signal.signal(signal.SIGTERM, _interrupting())
    try:
        from nodestill.cli import main as command
    except KeyboardInterrupt:
        sys.exit(130)
    command()


def _interrupting() -> Callable[[int, object], None]:
    """Return a handler by which SIGTERM ends a command as Ctrl-C does.

    Sent again at once it is the same one: `timeout` sends it to a process, then to the group that it is in.
    """
    last = float("-inf")

    def interrupt(number: int, frame: object) -> None:
        nonlocal last
        before, last = last, time.monotonic()
        if last - before > _AT_ONCE:
            raise KeyboardInterrupt

    return interrupt


if __name__ == "__main__":
    main()
