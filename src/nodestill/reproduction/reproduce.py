"""`nodestill reproduce`: the paper's tables and our controls, as one grid that is worked through and listed."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nodestill.data import DataIdentity, Dataset, count_images, identify
from nodestill.errors import InputError
from nodestill.experiments.plain import from_plain
from nodestill.experiments.store import RunFolder, Store
from nodestill.experiments.workspace import Workspace
from nodestill.reproduction.controls import controls
from nodestill.reproduction.grid import Cell, Grid, Part, best_cell, papers_dataset, require_part
from nodestill.reproduction.kept import take_over
from nodestill.reproduction.known import Known
from nodestill.reproduction.listing import grid_name, list_grid, of_part
from nodestill.reproduction.scale_changes import changes
from nodestill.reproduction.scales import Scale, ScaleName, scale_named
from nodestill.reproduction.schedule import Hands, News, Standing, standing, work_through


@dataclass(frozen=True)
class Asked:
    """What a command asks to be reproduced.

    Args:
        part: Which table or figure.
        dataset: Whose: cifar10 or svhn. The scale smoke puts digits in place of its images.
        scale: How large.
        seeds: Trainings of each cell, >= 1; their seeds are 0, 1, ... None for those of the scale, of the cells that are to be
            repeated, and one of the others.

    Raises:
        RecipeError: If the paper has no such part.
        InputError: If there are no seeds.
    """

    part: Part
    dataset: Dataset
    scale: Scale
    seeds: int | None

    def __post_init__(self) -> None:
        require_part(self.part, self.dataset)
        if self.seeds is not None and self.seeds < 1:
            raise InputError(f"--seeds must be at least 1, got {self.seeds}. Leave it out for {self.scale.seeds}.")

    @property
    def images(self) -> Dataset:
        """The data set that is trained on."""
        return (self.scale.shrunk.dataset if self.scale.shrunk else None) or self.dataset

    @property
    def about_seeds(self) -> str:
        """How often models are trained, in words."""
        if self.seeds is not None:
            return str(self.seeds)
        return (
            f"{self.scale.seeds} of the cells that are compared most closely, 1 of the others" if self.scale.seeds > 1 else "1"
        )

    @property
    def name(self) -> str:
        """The folder of the grid."""
        return grid_name(self.dataset, self.scale)

    def all_cells(self) -> list[Cell]:
        """Return every cell of every part, of all its seeds."""
        cells = [cell for seed in range(self.seeds or self.scale.seeds) for cell in self.cells_of(seed)]
        return [cell for cell in cells if cell.seed == 0 or cell.repeated or self.seeds is not None]

    def cells_of(self, seed: int) -> list[Cell]:
        """Return every cell of every part, of one seed."""
        grid = Grid(self.dataset, self.scale, seed)
        return [*grid.papers_cells(), *controls(grid)]

    def cells(self) -> list[Cell]:
        """Return the cells of the part that is asked for."""
        return of_part(self.all_cells(), self.part)

    def changes(self) -> list[tuple[str, str, str]]:
        """Return every field that is not the paper's: what, its value here, the paper's."""
        return changes(self.scale, self.dataset, *best_cell(self.dataset))


def asked_reproduction(part: str, dataset: str, scale: str, seeds: int | None) -> Asked:
    """Return what a command line asks for.

    Raises:
        RecipeError: If there is no such part, data set or scale.
        InputError: If there are no seeds.
    """
    chosen = scale_named(from_plain(ScaleName, scale, "--scale"))
    asked = from_plain(Part, part, "What to reproduce")
    return Asked(asked, papers_dataset(dataset), chosen, seeds)


def known_of(asked: Asked, store: Store, data_root: Path | None) -> Known:
    """Return the data of a grid and its store; raises `DataError` if the data are missing."""
    identity: DataIdentity = identify(asked.images, data_root)
    return Known(asked.images, identity, count_images(asked.images, data_root), store)


def take_over_rows(asked: Asked, known: Known, kept: Path) -> list[str]:
    """Take over kept rows of the grid, as long as they make more cells known, and return the run folders taken."""
    cells, taken = asked.all_cells(), list[str]()
    while True:
        now = standing(cells, known, asked.scale)
        more = take_over(kept / asked.name, known.store, [name for name in now.left if name not in taken])
        if not more:
            return taken
        taken += more


def reproduce(
    asked: Asked,
    workspace: Workspace,
    known: Known,
    hands: Hands,
    on_news: Callable[[News | None, Standing, set[str]], None],
) -> dict[str, str]:
    """Work through the cells that are asked for, and list the grid; return why what failed did, by run folder.

    Args:
        asked: What to reproduce.
        workspace: Where it is kept.
        known: Of `known_of`.
        hands: Who works.
        on_news: Told of every report; may raise `TimeUp`.
    """
    failed: dict[str, str] = {}
    try:
        failed = work_through(asked.cells(), known, asked.scale, hands, on_news)
    finally:
        write_listing(asked, known, failed)
    return failed


def write_listing(asked: Asked, known: Known, failed: dict[str, str]) -> RunFolder:
    """Write `grid.json` of a grid from what its store holds now, and return its folder.

    What an earlier command made of seeds that this one does not ask for stays listed.
    """
    folder, cells = known.store.folder(asked.name), asked.all_cells()
    pairs = [(cell, known.member(cell)) for cell in _listed_before(asked, folder)]
    more = [cell for cell, member in pairs if member and known.store.folder(member.folder).is_measured]
    list_grid(folder, asked.dataset, asked.scale, [*cells, *more], known, asked.changes(), failed)
    return folder


def _listed_before(asked: Asked, folder: RunFolder) -> list[Cell]:
    """Return the cells of the seeds in an earlier listing that are not asked for now."""
    if not (folder.path / "grid.json").exists():
        return []
    now = {(cell.name, cell.seed) for cell in asked.all_cells()}
    seeds = {cell["seed"] for cell in folder.read("grid.json", "cells")["cells"]}
    return [cell for seed in sorted(seeds) for cell in asked.cells_of(seed) if (cell.name, cell.seed) not in now]
