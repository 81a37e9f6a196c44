"""A real Ray of this machine: a worker is killed in the middle, the grid completes, and nothing finished is trained again."""

import os
import re
import signal
import time
from pathlib import Path

import pytest

pytest.importorskip("ray")

import fake_runs
from nodestill.experiments import Store, Workspace
from nodestill.reproduction import asked_reproduction
from nodestill.reproduction.on_ray import RayHands
from nodestill.reproduction.schedule import Happened, News, Standing, standing, work_through

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # Ray's own
]


def workers() -> list[int]:
    """Processes below this one that work on a model, by what Ray calls them."""
    found = [int(path.name) for path in Path("/proc").glob("[0-9]*") if _read(path / "cmdline").startswith("ray::_do")]
    return [pid for pid in found if os.getpid() in ancestors(pid)]


def ancestors(pid: int) -> set[int]:
    """The processes above a process."""
    above = re.search(r"^PPid:\s+(\d+)", _read(Path(f"/proc/{pid}/status")), re.MULTILINE)
    parent = int(above.group(1)) if above else 0
    return {parent, *ancestors(parent)} if parent else set()


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # it has ended
        return ""


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Start a Ray of this test's own."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_a_grid_completes_though_a_worker_is_killed(tmp_path):
    asked = asked_reproduction("table1", "cifar10", "smoke", 1)
    known = fake_runs.known(tmp_path)
    hands = RayHands(3, Workspace(Store(tmp_path), accelerator="cpu"), known)
    killed: list[int] = []
    finished: dict[str, float] = {}

    def on_news(news: News | None, now: Standing, running: set[str]) -> None:
        if news is not None and news.happened is Happened.DONE:
            finished[news.work] = (tmp_path / news.work / "weights.safetensors").stat().st_mtime
        busy = workers()
        if news is not None and news.happened is Happened.PROGRESS and finished and busy and not killed:
            killed.append(busy[0])
            os.kill(busy[0], signal.SIGKILL)

    assert work_through(asked.cells(), known, asked.scale, hands, on_news) == {}
    assert killed
    assert standing(asked.cells(), known, asked.scale).left == {}
    assert len(finished) == 7
    for name, written in finished.items():
        assert (tmp_path / name / "weights.safetensors").stat().st_mtime == written
        rows = [row["epoch"] for row in known.store.folder(name).rows("training.jsonl")]
        assert rows == list(range(1, len(rows) + 1))


def test_what_sigterm_does_is_left_to_the_command(tmp_path):
    usual = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        RayHands(1, Workspace(Store(tmp_path), accelerator="cpu"), fake_runs.known(tmp_path)).close()
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, usual)


def test_an_error_of_a_model_is_not_tried_again(tmp_path):
    asked = asked_reproduction("table3", "cifar10", "smoke", 1)
    known = fake_runs.known(tmp_path)
    name = known.member(asked.cells()[0]).folder
    (tmp_path / name).mkdir()
    (tmp_path / name / "recipe.json").mkdir()  # nothing can be written there
    started = time.monotonic()
    failed = work_through(
        asked.cells(), known, asked.scale, RayHands(2, Workspace(Store(tmp_path), accelerator="cpu"), known), lambda *_: None
    )
    assert list(failed) == [name]
    assert "DataError" in failed[name]
    assert time.monotonic() - started < 120
