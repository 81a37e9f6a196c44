"""The made-up grid of which most tests of tables, claims and intervals read."""

import pytest

from nodestill.reproduction.grid_records import GridRecords
from report.made_grids import made_up


@pytest.fixture(scope="session")
def grid(tmp_path_factory) -> GridRecords:
    """Two seeds of everything."""
    return made_up(tmp_path_factory.mktemp("store"), {"resnet": 0.9, "kd": 0.8, "node": 0.6, "labels": 0.7}, 2)
