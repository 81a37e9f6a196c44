"""Rows of finished models that are kept in a repository, and a grid that goes on from them in a fresh clone.

Rows count as done without weights. Weights are needed where a student that is not finished has that teacher, or where more is
to be measured: then the teacher is trained again and all its rows with it, unless its weights were kept too.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

from nodestill.errors import DataError
from nodestill.experiments.store import DIVERGED, RunFolder, Store

NEEDED = ("recipe.json", "environment.json", "training.jsonl", "evaluation.json")
IF_THERE = ("robustness.jsonl", "solvers.jsonl", "weights.safetensors")


def take_over(kept: Path, store: Store, folders: Iterable[str]) -> list[str]:
    """Copy the rows of models into a store that does not have them, mark them as measured, and return which.

    Args:
        kept: Holds run folders, as `keep` or `results/collect.py` left them; it need not exist.
        store: Where the grid works. A folder in which a training has begun is left as it is.
        folders: The run folders that the grid needs.

    Raises:
        DataError: If a file cannot be copied.
    """
    taken = []
    for name in folders:
        target = store.folder(name)
        if not target.path.exists() and _is_kept(kept / name):
            _take(kept / name, target)
            taken.append(name)
    return taken


def _take(source: Path, target: RunFolder) -> None:
    """Copy beside where it belongs, and put it there when it is whole: a kill leaves nothing that looks begun."""
    fresh = RunFolder(target.path.with_name(f".{target.path.name}.tmp"))
    shutil.rmtree(fresh.path, ignore_errors=True)
    _copy(source, fresh.path)
    if not fresh.has_diverged:
        fresh.mark("DONE" if (fresh.path / "weights.safetensors").exists() else "ROWS")
    try:
        fresh.path.rename(target.path)
    except OSError as error:
        raise DataError(f"Cannot put {fresh.path} at {target.path}: {error.strerror}. Remove what is there.") from None


def _is_kept(source: Path) -> bool:
    return RunFolder(source).has_diverged or all((source / file).is_file() for file in NEEDED)


def keep(source: RunFolder, target: Path, *, weights: bool) -> None:
    """Copy the rows of a finished model to where they are kept, and its weights if they are wanted.

    Raises:
        DataError: If a file cannot be copied.
    """
    _copy(source.path, target, () if weights else ("weights.safetensors",))


def _copy(source: Path, target: Path, left_out: tuple[str, ...] = ()) -> None:
    try:
        target.mkdir(parents=True, exist_ok=True)
        for file in (DIVERGED,) if RunFolder(source).has_diverged else (*NEEDED, *IF_THERE):
            if file not in left_out and (file not in IF_THERE or (source / file).exists()):
                shutil.copyfile(source / file, target / file)
    except OSError as error:
        raise DataError(
            f"Cannot copy the rows of {source} to {target}: {error.strerror or error}. Make room, or choose another folder."
        ) from None
