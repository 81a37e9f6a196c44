"""A training in several processes, which says through a pipe how far it is, and which ends where nobody listens any more."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from multiprocessing import active_children
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Any

from nodestill.errors import TrainingError

Watch = Callable[[str, int, int, str], None]  # task, done, total, note


def silent(task: str, done: int, total: int, note: str) -> None:
    """Watch nothing."""


def in_processes(fabric: Any, work: Callable[..., None], watch: Watch) -> None:
    """Do work in one process per device of a Fabric.

    Args:
        fabric: Made for several devices, and not launched.
        work: Called in each process as `work(fabric, watch=...)`; can be pickled.
        watch: Told here what the processes tell theirs. If it raises they are ended, and what it raised is raised again.

    Raises:
        TrainingError: If a process fails.
    """
    from torch.multiprocessing import Pipe, ProcessExitedException, ProcessRaisedException

    heard, said = Pipe(duplex=False)  # no lock, that a process which is killed might hold
    end, stopped = partial(_end, frozenset(active_children())), list[Exception]()
    listener = Thread(target=_pass_on, args=(heard, watch, end, stopped), daemon=True)
    listener.start()
    try:
        fabric.launch(partial(work, watch=partial(_say, said)))
    except (ProcessRaisedException, ProcessExitedException) as error:
        if not stopped:
            reason = str(error).strip().splitlines()[-1]
            raise TrainingError(f"A process of the training failed: {reason}") from error
    finally:
        end()
        said.close()
        listener.join()
        heard.close()
    if stopped:
        raise stopped[0]


def _say(said: Connection, *progress: object) -> None:
    said.send(progress)


def _end(others: frozenset[BaseProcess]) -> None:
    """End the processes that were started since; an epoch that one of them saved is whole."""
    for process in frozenset(active_children()) - others:
        process.terminate()


def _pass_on(heard: Connection, watch: Watch, end: Callable[[], None], stopped: list[Exception]) -> None:
    """Show what other processes say until all of them have ended; should that raise, say so in `stopped` and end them."""
    for progress in _told(heard):
        try:
            watch(*progress)
        except Exception as error:  # whatever it is, nobody listens from now on, and who speaks would wait for ever
            stopped.append(error)
            end()
            return


def _told(heard: Connection) -> Iterator[tuple[str, int, int, str]]:
    with suppress(EOFError, OSError):
        while True:
            yield heard.recv()
