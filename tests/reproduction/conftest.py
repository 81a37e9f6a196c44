"""What several tests of grids read and none changes."""

import pytest

import fake_runs
from fake_grids import all_controls
from nodestill.reproduction import Asked
from nodestill.reproduction.known import Known


@pytest.fixture(scope="session")
def controlled(tmp_path_factory) -> tuple[Asked, Known, fake_runs.FakeHands]:
    """All controls of two seeds, made up, with the hands that did it."""
    return all_controls(tmp_path_factory.mktemp("store"))
