"""What a grid asked for and where its rows lie, as `grid.json`: all that a report needs besides the run folders."""

from collections.abc import Mapping, Sequence
from typing import Any

from nodestill.data import Dataset
from nodestill.experiments.model_recipes import StudentRecipe, TeacherRecipe
from nodestill.experiments.paper import PAPER_UNDER_PGD
from nodestill.experiments.stages import attack_key
from nodestill.experiments.store import DIVERGED, RunFolder
from nodestill.reproduction.grid import Cell, Part
from nodestill.reproduction.known import Known
from nodestill.reproduction.scales import Scale
from nodestill.reproduction.work import with_needs


def grid_name(dataset: Dataset, scale: Scale) -> str:
    """Return the name of the folder of a grid."""
    return f"reproduce-{dataset.value}-{scale.name.value}"


def list_grid(
    folder: RunFolder,
    dataset: Dataset,
    scale: Scale,
    cells: Sequence[Cell],
    known: Known,
    changed: Sequence[tuple[str, str, str]],
    failed: Mapping[str, str],
) -> None:
    """Write `grid.json`: every cell with run folder, attack, the paper's number, and why it is not there.

    Trainings that only decide a rate, and their teachers, are cells of no part.
    """
    listing = {
        "name": folder.path.name,
        "dataset": dataset.value,
        "data": known.identity.provenance,
        "scale": scale.name.value,
        "about": scale.about,
        "seeds": sorted({cell.seed for cell in cells}),
        "changes": [list(change) for change in changed],
        "table3": {str(eps): percent for eps, percent in PAPER_UNDER_PGD.get(dataset, {}).items()},
        "cells": [_entry(cell, known, failed, scale) for cell in with_needs(cells)],
        "schema": 1,
    }
    if not (folder.path / "grid.json").exists() or folder.read("grid.json") != listing:
        folder.write("grid.json", listing)


def _entry(cell: Cell, known: Known, failed: Mapping[str, str], scale: Scale) -> dict[str, Any]:
    member = known.member(cell)
    name = None if member is None else member.folder
    why = _why_hopeless(cell, known) if name is None else failed.get(name) or _why_diverged(known.store.folder(name))
    return {
        "name": cell.name,
        "about": cell.about,
        "parts": [part.value for part in cell.parts],
        "seed": cell.seed,
        "folder": name,
        "teacher": None if cell.teacher is None else cell.teacher.name,
        "attack": None if cell.attack is None else attack_key(cell.attack, known.identity),
        "paper": cell.paper,
        "compared": cell.compared,
        "failed": why,
        "scored_images": scale.scored_images if cell.scored else 0,
        **_coordinates(cell),
    }


def _why_diverged(folder: RunFolder) -> str | None:
    return folder.read(DIVERGED, "why")["why"] if folder.has_diverged else None


def _why_hopeless(cell: Cell, known: Known) -> str | None:
    return "every rate that was tried diverged" if known.is_hopeless(cell) else None


def _coordinates(cell: Cell) -> dict[str, Any]:
    """Return what places a cell in a table: the teacher's depth, the temperature, the horizon."""
    depth = cell.teacher.model if cell.teacher is not None else cell.model
    student = cell.model if isinstance(cell.model, StudentRecipe) else None
    distillation = None if student is None else student.distillation
    return {
        "depth": depth.depth if isinstance(depth, TeacherRecipe) else None,
        "temperature": None if distillation is None else distillation.temperature,
        "t1": None if student is None else student.t1,
    }


def of_part(cells: Sequence[Cell], part: Part) -> list[Cell]:
    """Return the cells of a part."""
    return [cell for cell in cells if part is Part.ALL or part in cell.parts]
