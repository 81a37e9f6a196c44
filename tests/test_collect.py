"""What results/collect.py keeps of a grid is what a grid goes on from."""

import pytest

import fake_runs
from nodestill.reproduction import asked_reproduction
from nodestill.reproduction.grid_records import read_grid
from nodestill.reproduction.reproduce import take_over_rows, write_listing
from nodestill.reproduction.schedule import standing
from scripts import loaded


@pytest.fixture(scope="module")
def collect():
    """The script as a module."""
    return loaded("results/collect.py")


def test_a_grid_goes_on_from_what_was_collected(tmp_path, collect, monkeypatch):
    monkeypatch.setattr(collect, "TINY", 3)
    asked, known = asked_reproduction("table2", "cifar10", "smoke", 1), fake_runs.known(tmp_path / "runs")
    left = standing(asked.cells(), known, asked.scale).left
    for work in left.values():  # the students of ResNet-20 are not trained yet
        if work.teacher is None or "resnet20" not in work.teacher.folder:
            fake_runs.finish(work, known)
    write_listing(asked, known, {})
    collect.main(tmp_path / "runs", asked.name, tmp_path / "results")
    kept = list((tmp_path / "results" / asked.name).glob("*/weights.safetensors"))
    assert len([path for path in kept if "resnet20" in path.parent.name]) == 1
    again = fake_runs.known(tmp_path / "clone")
    taken = take_over_rows(asked, again, tmp_path / "results")
    assert len(taken) == len(left) - 3
    now = standing(asked.cells(), again, asked.scale)
    assert len(now.left) == 3
    assert all("resnet20" in work.teacher.folder for work in now.left.values())
    grid = read_grid(tmp_path / "results" / asked.name)  # the report can be read from there too
    assert len([cell for cell in grid.cells if cell.run is not None and "table2" in cell.parts]) == 12


def test_large_weights_are_left_out(tmp_path, collect, monkeypatch):
    monkeypatch.setattr(collect, "SMALL", 3)
    monkeypatch.setattr(collect, "TINY", 3)
    asked, known = asked_reproduction("table2", "cifar10", "smoke", 1), fake_runs.known(tmp_path / "runs")
    for work in standing(asked.cells(), known, asked.scale).left.values():
        if work.teacher is None:
            fake_runs.finish(work, known)
    write_listing(asked, known, {})
    collect.main(tmp_path / "runs", asked.name, tmp_path / "results")
    assert not list((tmp_path / "results").rglob("weights.safetensors"))


def test_tiny_weights_are_kept_for_good(tmp_path, collect):
    asked, known = asked_reproduction("table2", "cifar10", "smoke", 1), fake_runs.known(tmp_path / "runs")
    while left := standing(asked.cells(), known, asked.scale).left:
        for work in left.values():
            fake_runs.finish(work, known)
    write_listing(asked, known, {})
    collect.main(tmp_path / "runs", asked.name, tmp_path / "results")
    files = ("weights.safetensors", "evaluation.json")
    kept, finished = ({path.parent for path in (tmp_path / "results").rglob(name)} for name in files)
    assert kept == finished
    assert kept


def test_a_folder_that_is_neither_is_refused_in_words(tmp_path, collect):
    with pytest.raises(SystemExit, match=r"holds neither experiment\.json nor grid\.json"):
        collect.main(tmp_path, "nothing", tmp_path)
