"""What a grid says, read back for tables and figures: `grid.json` and the run folders that it lists."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from nodestill.experiments.records import RunRecords, read_run
from nodestill.experiments.store import RunFolder


@dataclass(frozen=True)
class GridCell:
    """One cell of a grid as `grid.json` lists it.

    Attributes:
        name: The same for all seeds.
        about: What it is called in print.
        parts: Where it is a row: table1, figure1, controls, ...
        seed: Of its training.
        folder: Its run folder, or none as long as its settings hang on what is not measured.
        paper: What the paper reports, clean, in percent.
        compared: Name of the cell it is compared with.
        failed: Why it failed, the last time that the grid ran.
        depth: Of its teacher, or of itself.
        temperature: Of its distillation.
        t1: Its horizon.
        run: Its records, if it is finished.
        solvers: Its `SolverRow`s.
        diverged: Whether it is a rate that was tried and diverged, or all that were tried for it did: it never will be there.
    """

    name: str
    about: str
    parts: tuple[str, ...]
    seed: int
    folder: str | None
    paper: float | None
    compared: str | None
    failed: str | None
    depth: int | None
    temperature: float | None
    t1: float | None
    run: RunRecords | None
    solvers: tuple[dict[str, Any], ...]
    diverged: bool


class Counted(NamedTuple):
    """How many models of a grid there are of each kind; together they are all."""

    finished: int
    diverged: int  # nothing else will come
    left: int


@dataclass(frozen=True)
class GridRecords:
    """A grid: what it asked for, what is finished, and every value that is not the paper's.

    Attributes:
        path: The folder of `grid.json`.
        dataset: cifar10 or svhn: whose numbers stand beside ours.
        data: Which images it really was.
        scale: smoke, cpu, gpu or paper.
        about: What the scale is.
        changes: Field, value here, the paper's value.
        cells: All of them, of all seeds.
        table3: The paper's accuracies of NODE(500) under PGD in percent, by radius.
    """

    path: Path
    dataset: str
    data: str
    scale: str
    about: str
    changes: tuple[tuple[str, str, str], ...]
    cells: tuple[GridCell, ...]
    table3: dict[int, float]

    def named(self, name: str) -> dict[int, GridCell]:
        """Return the finished cells of a name by seed."""
        return {cell.seed: cell for cell in self.cells if cell.name == name and cell.run is not None}

    def runs(self, name: str) -> dict[int, RunRecords]:
        """Return the records of the finished cells of a name by seed."""
        return {cell.seed: cell.run for cell in self.cells if cell.name == name and cell.run is not None}

    def names(self, part: str) -> list[str]:
        """Return the names of the cells of a part, in order."""
        return list(dict.fromkeys(cell.name for cell in self.cells if part in cell.parts))

    def counted(self) -> Counted:
        """Return how many models are finished, diverged and left; cells of one run folder are one model."""
        models = {cell.folder or (cell.name, cell.seed): (cell.run is not None, cell.diverged) for cell in self.cells}
        finished, diverged = sum(there for there, _ in models.values()), sum(out for _, out in models.values())
        return Counted(finished, diverged, len(models) - finished - diverged)

    @property
    def best(self) -> str:
        """The cell of Table 2 that the figure shows: the paper's best."""
        return next(cell.name for cell in self.cells if "table2" in cell.parts and "figure1" in cell.parts)

    @property
    def best_teacher(self) -> str:
        """Its teacher."""
        return f"resnet{self.first(self.best).depth}"

    def first(self, name: str) -> GridCell:
        """Return a cell of a name, finished or not."""
        return next(cell for cell in self.cells if cell.name == name)


def read_grid(folder: Path) -> GridRecords:
    """Read a grid from the folder of its `grid.json`; its run folders are inside that folder or beside it.

    Raises:
        DataError: If there is none, or a file is damaged.
    """
    keys = ("dataset", "data", "scale", "about", "changes", "cells", "table3")
    listing = RunFolder(folder).read("grid.json", *keys)
    changes = tuple((field, here, there) for field, here, there in listing["changes"])
    table3 = {int(eps): percent for eps, percent in listing["table3"].items()}
    cells = tuple(_grid_cell(folder, entry) for entry in listing["cells"])
    dataset, data, scale, about = (listing[key] for key in keys[:4])
    return GridRecords(folder, dataset, data, scale, about, changes, cells, table3)


def _grid_cell(root: Path, entry: dict[str, Any]) -> GridCell:
    places = [] if entry["folder"] is None else [root / entry["folder"], root.parent / entry["folder"]]
    found = next((RunFolder(place) for place in places if (place / "evaluation.json").is_file()), None)
    run = None if found is None else read_run(found, entry["attack"])
    if run is not None and entry["attack"] is None:
        run = replace(run, robustness=[])  # somebody attacked it, but not as part of the grid
    same = ("name", "about", "seed", "folder", "paper", "compared", "failed", "depth", "temperature", "t1")
    scorings = [] if found is None else found.rows("solvers.jsonl", "name", "images", "accuracy", "difference")
    images = 0 if run is None else min(entry["scored_images"], run.evaluation["clean"]["images"])  # as many as there are
    solvers = tuple(row for row in scorings if row["images"] == images)
    tried = any(RunFolder(place).has_diverged for place in places) or (entry["folder"] is None and entry["failed"] is not None)
    same_values = {key: entry[key] for key in same}
    return GridCell(**same_values, parts=tuple(entry["parts"]), run=run, solvers=solvers, diverged=run is None and tried)
