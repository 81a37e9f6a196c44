"""Processes of this machine that work on a grid, each on one model at a time and with threads of its own.

A process is kept from model to model, so that it loads libraries and images once. One that is killed is a failed model, and
another takes its place: what it had finished is on disk, and the next command goes on from there.
"""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from threading import Thread

from nodestill.experiments.processes import Watch, silent
from nodestill.experiments.workspace import Workspace
from nodestill.reproduction.known import Known
from nodestill.reproduction.schedule import Happened, News
from nodestill.reproduction.work import Images, Work, carry_out

_REPORT_EVERY = 0.2  # seconds
_PATIENCE = 5.0  # seconds for a process to end


class _Worker:
    """One process, the pipe to it, and what it works on."""

    def __init__(self, workspace: Workspace, known: Known, threads: int) -> None:
        context = get_context("spawn")  # a fork would copy the threads' locks, and CUDA does not survive one
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, workspace, known, threads), daemon=True)
        self.process.start()
        theirs.close()
        self.work: str | None = None

    def end(self) -> None:
        self.process.kill()
        self.process.join(_PATIENCE)
        self.pipe.close()


class LocalHands:
    """So many processes of this machine.

    Args:
        jobs: Processes, >= 1.
        workspace: Where, and with what; its watch is not used.
        known: The data and the store.
        threads: Of each process.
    """

    def __init__(self, jobs: int, workspace: Workspace, known: Known, threads: int = 1) -> None:
        self._make = lambda: _Worker(replace(workspace, watch=silent), known, threads)
        self._jobs = jobs
        self._workers: list[_Worker] = []

    def free(self) -> int:
        """Return how many more works can be taken now."""
        return self._jobs - sum(worker.work is not None for worker in self._workers)

    def give(self, work: Work) -> None:
        """Take a work; a process is started when it is needed."""
        idle = next((worker for worker in self._workers if worker.work is None and worker.process.is_alive()), None)
        if idle is None:
            idle = self._make()
            self._workers.append(idle)
        idle.work = work.name
        idle.pipe.send(work)

    def wait(self, seconds: float) -> list[News]:
        """Return what happened since, as soon as anything did, after so many seconds at the latest."""
        ready = set(wait([worker.pipe for worker in self._workers], seconds))
        return [news for worker in list(self._workers) if worker.pipe in ready for news in self._heard(worker)]

    def _heard(self, worker: _Worker) -> list[News]:
        try:
            news: News = worker.pipe.recv()
        except (EOFError, OSError):
            return self._lost(worker)
        if news.happened is not Happened.PROGRESS:
            worker.work = None
        return [news]

    def _lost(self, worker: _Worker) -> list[News]:
        worker.process.join(_PATIENCE)
        code, name = worker.process.exitcode, worker.work
        self._workers.remove(worker)
        worker.end()
        why = f"its process was stopped (exit code {code}). What it finished is kept: the same command goes on from there."
        return [] if name is None else [News(name, Happened.FAILED, note=why)]

    def close(self) -> None:
        """Stop all processes; what is finished is on disk."""
        for worker in self._workers:
            worker.end()
        self._workers = []


def _serve(pipe: Connection, workspace: Workspace, known: Known, threads: int) -> None:
    """Work on what comes through the pipe until it closes."""
    Thread(target=_end_with_parent, daemon=True).start()
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = False
    images = Images(known.dataset, workspace.data_root)
    with suppress(EOFError, OSError):  # of the pipe alone: there is nobody to tell
        while True:
            work: Work = pipe.recv()
            pipe.send(attempt(work, replace(workspace, watch=reporter(pipe.send, work.name)), known, images))


def _end_with_parent() -> None:
    """End this process as soon as its parent has ended, however that came: another command may work on the same model."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def attempt(work: Work, workspace: Workspace, known: Known, images: Images) -> News:
    """Carry out a work, and return how it went: no failure of one model ends the process."""
    try:
        carry_out(work, workspace, known, images)
    except Exception as error:  # whatever it is, the grid goes on and says so
        said = str(error) or "no reason given"
        return News(work.name, Happened.FAILED, note=" ".join(f"{type(error).__name__}: {said}".split()))
    return News(work.name, Happened.DONE)


def reporter(send: Callable[[News], None], name: str) -> Watch:
    """Return a watch that sends what a work reports, not too often."""
    last = 0.0

    def watch(task: str, done: int, total: int, note: str) -> None:
        nonlocal last
        if time.monotonic() - last >= _REPORT_EVERY:
            last = time.monotonic()
            send(News(name, Happened.PROGRESS, task, done, total, note))

    return watch
