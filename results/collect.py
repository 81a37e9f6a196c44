"""Copy the rows of an experiment or a grid from a folder of runs into this one: python results/collect.py runs cifar10-smoke

The rows of every finished model, and the weights of tiny ones, for the test that scores them again. Of a grid also those of
small teachers that still have a student to teach: all that `nodestill reproduce` needs to go on in a fresh clone.
"""

import json
import shutil
import sys
from pathlib import Path

KEPT = ("recipe.json", "environment.json", "training.jsonl", "evaluation.json")
IF_THERE = ("robustness.jsonl", "solvers.jsonl")
DIVERGED = "diverged.json"  # of a rate that was tried and is out
SMALL = 4_000_000  # bytes of weights that a repository may hold as long as a teacher is needed
TINY = 100_000  # and for good
ABOUT = {"experiment.json": ("experiment.json", "report.md", "commands.jsonl"), "grid.json": ("grid.json", "report.md")}


def main(runs: Path, name: str, results: Path = Path(__file__).parent) -> None:
    """Copy what an experiment or a grid lists; what was there before is replaced, once all of it is copied."""
    source, target, fresh = runs / name, results / name, results / f".{name}.tmp"
    listed = next((file for file in ABOUT if (source / file).is_file()), None)
    if listed is None:
        sys.exit(f"{source} holds neither experiment.json nor grid.json. Name a folder of the store that `nodestill` wrote.")
    listing = json.loads((source / listed).read_text())
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for file in ABOUT[listed]:
        if (source / file).exists():
            shutil.copy(source / file, fresh)
    needed = teaching(listing, runs) if listed == "grid.json" else set()
    for member in members(listing, runs):
        copy(runs / member, fresh / member, needed=member in needed)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)


def members(listing: dict, runs: Path) -> list[str]:
    """Return the run folders of an experiment, or the finished ones of a grid."""
    if "members" in listing:
        return listing["members"]
    folders = dict.fromkeys(cell["folder"] for cell in listing["cells"] if cell["folder"])
    return [folder for folder in folders if any((runs / folder / file).is_file() for file in ("evaluation.json", DIVERGED))]


def teaching(listing: dict, runs: Path) -> set[str]:
    """Return the finished run folders of a grid that have a student whose training is not finished."""
    by_name = {(cell["name"], cell["seed"]): cell["folder"] for cell in listing["cells"]}
    finished = set(members(listing, runs))
    wanted = {by_name.get((cell["teacher"], cell["seed"])) for cell in listing["cells"] if cell["folder"] not in finished}
    return wanted & finished


def copy(source: Path, target: Path, *, needed: bool) -> None:
    """Copy the rows of a model, and its weights if they are tiny, or needed and small."""
    target.mkdir()
    if (source / DIVERGED).exists():
        shutil.copy(source / DIVERGED, target / DIVERGED)
        return
    weights = source / "weights.safetensors"
    extra = (weights.name,) if weights.is_file() and weights.stat().st_size <= (SMALL if needed else TINY) else ()
    for file in (*KEPT, *(file for file in (*IF_THERE, *extra) if (source / file).exists())):
        shutil.copy(source / file, target / file)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
