"""A grid at its smallest: what is done is not done again, what was killed goes on, what failed stops nothing else."""

import pytest

from nodestill.experiments import Store, Workspace
from nodestill.reproduction import asked_reproduction
from nodestill.reproduction.engine import LocalHands
from nodestill.reproduction.grid_records import read_grid
from nodestill.reproduction.reproduce import known_of, reproduce


def nothing(*_: object) -> None:
    """Hear no news."""


def done(root, part: str = "table1", seeds: int = 1, on_news=nothing) -> dict[str, str]:
    """Reproduce a part at the scale smoke with one process."""
    asked = asked_reproduction(part, "cifar10", "smoke", seeds)
    store = Store(root)
    workspace, known = Workspace(store, accelerator="cpu"), known_of(asked, store, None)
    return reproduce(asked, workspace, known, LocalHands(1, workspace, known), on_news)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Table 1 at the scale smoke."""
    root = tmp_path_factory.mktemp("store")
    assert done(root) == {}
    return root


def test_table_1_is_there(finished):
    grid = read_grid(finished / "reproduce-cifar10-smoke")
    assert grid.dataset == "cifar10"
    assert all(grid.named(name) for name in grid.names("table1"))
