"""Workers of a Ray cluster in place of processes of one machine: the same works, the same store, the same loop.

The cluster is the one that RAY_ADDRESS names, or one of this machine alone. Every node must see the store and the data under
the same paths. A worker that is lost is replaced by Ray, and its model goes on from its last epoch; what is done is only read.
"""

import os
import signal
from dataclasses import replace
from functools import cache
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

from nodestill.data import Dataset
from nodestill.errors import InputError
from nodestill.experiments.processes import silent
from nodestill.experiments.store import Store
from nodestill.experiments.workspace import Workspace
from nodestill.reproduction.engine import attempt, reporter
from nodestill.reproduction.known import Known
from nodestill.reproduction.schedule import Happened, News
from nodestill.reproduction.work import Images, Work

_RETRIES = 3  # of a model whose worker is lost; an error of the model itself is not tried again


class RayHands:
    """Workers of a Ray cluster.

    Args:
        jobs: Works at a time; on a cluster of many machines, as many as its cores hold at most.
        workspace: Where, and with what; its watch is not used.
        known: The data and the store.
        threads: Of each work.

    Raises:
        InputError: If Ray is not installed, or its cluster cannot be reached.
    """

    def __init__(self, jobs: int, workspace: Workspace, known: Known, threads: int = 1) -> None:
        self._ray = _ray()
        self._own = not self._ray.is_initialized()
        if self._own:
            _connect(self._ray, jobs * threads)
        from ray.util.queue import Queue

        self._reports: Any = Queue(actor_options={"num_cpus": 0})
        gpus = 1 if _wants_gpu(workspace.accelerator, self._ray) else 0
        self._do = self._ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=_RETRIES)(_do)
        shared = Store(workspace.store.root.resolve())
        data_root = None if workspace.data_root is None else workspace.data_root.resolve()
        workspace = replace(workspace, store=shared, data_root=data_root, watch=silent)
        self._told = (workspace, replace(known, store=shared), threads)
        there = self._ray.cluster_resources()
        most = min(there.get("CPU", 1) // threads, there.get("GPU", 0) if gpus else jobs)
        self._jobs = max(1, min(jobs, int(most)))
        self._running: dict[Any, str] = {}

    def free(self) -> int:
        """Return how many more works can be taken now."""
        return self._jobs - len(self._running)

    def give(self, work: Work) -> None:
        """Take a work."""
        self._running[self._do.remote(work, *self._told, self._reports)] = work.name

    def wait(self, seconds: float) -> list[News]:
        """Return what happened since, as soon as a work ended, after so many seconds at the latest."""
        ended, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        reports = self._reports.get_nowait_batch(self._reports.qsize())
        running = set(self._running.values())
        progress = [news for news in reports if news.work in running]
        return [*progress, *[self._outcome(one) for one in ended]]

    def _outcome(self, ended: Any) -> News:
        name = self._running.pop(ended)
        try:
            return self._ray.get(ended)
        except self._ray.exceptions.RayError as error:
            why = " ".join(str(error).split())
            lost = isinstance(error, (self._ray.exceptions.WorkerCrashedError, self._ray.exceptions.NodeDiedError))
            said = f"its worker was lost {_RETRIES + 1} times" if lost else "Ray could not carry it out"
            return News(name, Happened.FAILED, note=f"{said}: {type(error).__name__}: {why}")

    def close(self) -> None:
        """Stop what runs; what is finished is on disk."""
        for one in self._running:
            self._ray.cancel(one, force=True)
        self._running = {}
        self._reports.shutdown(force=True)
        if self._own:
            self._ray.shutdown()


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise InputError("--engine ray needs Ray, which is not installed. Install nodestill[sweep], or use local.") from None
    return ray


def _wants_gpu(accelerator: str, ray: Any) -> bool:
    """Return whether works compute on GPUs; left to us, they do where the cluster has any."""
    return accelerator == "cuda" or (accelerator == "auto" and ray.cluster_resources().get("GPU", 0) >= 1)


def _connect(ray: Any, cores: int) -> None:
    address = os.environ.get("RAY_ADDRESS")
    size = {} if address else {"num_cpus": cores}
    terminated = signal.getsignal(signal.SIGTERM)  # Ray would have it end this process without a word
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, configure_logging=False, **size)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise InputError(f"Ray cannot be started or reached: {reason}. Set RAY_ADDRESS, or use --engine local.") from None
    finally:
        if current_thread() is main_thread() and terminated is not None:
            signal.signal(signal.SIGTERM, terminated)


@cache
def _images(dataset: Dataset, root: Path | None) -> Images:
    """Return the images of a grid, loaded once for each worker."""
    return Images(dataset, root)


def _do(work: Work, workspace: Workspace, known: Known, threads: int, reports: Any) -> News:
    """Carry out a work in a worker of Ray."""
    import torch

    torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = False
    watch = reporter(reports.put_nowait, work.name)
    return attempt(work, replace(workspace, watch=watch), known, _images(known.dataset, workspace.data_root))
