"""What a run folder says, read back for tables and figures: plain JSON values, no weights, no device."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodestill.errors import DataError
from nodestill.experiments.store import RunFolder


@dataclass(frozen=True)
class RunRecords:
    """Everything one run folder recorded.

    Attributes:
        path: The folder.
        role: teacher, distilled, undistilled or stem-only.
        title: What the model is called in print: ResNet-20, NODE(1).
        recipe: What was asked: `dataset`, `provenance` (which data it really was), `seed`, `model` (the stage's recipe), ...
        environment: Versions, device, threads, commit.
        training: One `EpochRecord` an epoch.
        evaluation: `clean` (an `Evaluation`), `cost` (`parameters`, `macs`, `macs_per_evaluation`, of a Neural ODE
            `macs_in_f`), `evaluations` (NFE of the clean test images: `mean`, `min`, `max`, `histogram`; none for a residual
            network), `seconds`.
        robustness: One `RobustnessRow` per attack and radius, of one robustness recipe.
        gallery: Adversarial images: `eps_255`, `label`, `predicted_clean`, `predicted`, `clean`, `adversarial` (PNG, base64).
        audit: The newest audit; None if there is none.
    """

    path: Path
    role: str
    title: str
    recipe: dict[str, Any]
    environment: dict[str, Any]
    training: list[dict[str, Any]]
    evaluation: dict[str, Any]
    robustness: list[dict[str, Any]]
    gallery: list[dict[str, Any]]
    audit: "AuditRecords | None" = None


@dataclass(frozen=True)
class Experiment:
    """A recipe's models, teacher first."""

    name: str
    recipe: dict[str, Any]
    runs: tuple[RunRecords, ...]


def read_run(folder: RunFolder, attack: str | None = None) -> RunRecords:
    """Read a finished run folder.

    Args:
        folder: The folder.
        attack: Fingerprint of the robustness recipe whose rows are wanted; None for the newest.

    Raises:
        DataError: If a file is missing or damaged.
    """
    recipe = folder.read("recipe.json", "role", "title", "dataset", "seed", "model", "class_names")
    robustness = folder.rows("robustness.jsonl", "recipe", "attack", "eps_255")
    if attack is None and robustness:
        attack = robustness[-1]["recipe"]
    gallery = folder.read("gallery.json") if (folder.path / "gallery.json").exists() else {}
    return RunRecords(
        path=folder.path,
        role=recipe["role"],
        title=recipe["title"],
        recipe=recipe,
        environment=folder.read("environment.json"),
        training=folder.rows("training.jsonl"),
        evaluation=folder.read("evaluation.json", "clean", "evaluations", "cost", "seconds"),
        robustness=[row for row in robustness if row["recipe"] == attack],
        gallery=gallery.get(attack, []),
        audit=read_audit(folder) if (folder.path / "audit.json").exists() else None,
    )


def read_experiment(root: Path, name: str) -> Experiment:
    """Read an experiment: its `experiment.json` lists the run folders beside it, those that are finished are read.

    Raises:
        DataError: If there is no such experiment or nothing of it is finished.
    """
    matching = experiments_named(root, name)
    if len(matching) != 1:
        known = ", ".join(matching or experiments_named(root, "*")) or "none; run a recipe first"
        raise DataError(f"{root} holds no experiment {name!r}. It holds: {known}.")
    folder = RunFolder(root / matching[0])
    listed = folder.read("experiment.json", "recipe", "members", "attack")
    members = [RunFolder(root / member) for member in listed["members"]]
    runs = tuple(read_run(member, listed["attack"]) for member in members if member.is_done)
    if not runs:
        raise DataError(f"No model of {folder.path} is finished. Run the recipe {name!r} to its end first.")
    return Experiment(folder.path.name, listed["recipe"], runs)


def experiments_named(root: Path, name: str) -> list[str]:
    """Return the experiments that a name may mean: that one, or else those made by changing its recipe; "*" means all."""
    known = sorted(path.parent.name for path in root.glob("*/experiment.json"))
    return [name] if name in known else [other for other in known if name == "*" or other.startswith(f"{name}-")]


def finished_experiments(root: Path) -> list[str]:
    """Return the experiments of which at least one model is finished."""
    found = []
    for name in experiments_named(root, "*"):
        members = RunFolder(root / name).read("experiment.json", "members")["members"]
        if any(RunFolder(root / member).is_done for member in members):
            found.append(name)
    return found


@dataclass(frozen=True)
class AuditRecords:
    """An audit as its folder tells it.

    Attributes:
        path: The folder of the model.
        summary: Content of audit.json: `title`, `data`, `images`, `asked`, `eps_255`, `verdict`, `failed` (why a curve was not
            made), `environment`, ...
        checks: One row a check; its `verdict` is none if the model does not offer what the check needs.
        paper: `RobustnessRow`s of the protocol chu2022.
        worst: Those of the protocol sound.
        hunted: `SoundRow`s: what each attack added at each radius.
        pictures: Adversarial images (PNG files) with their names.
    """

    path: Path
    summary: dict[str, Any]
    checks: list[dict[str, Any]]
    paper: list[dict[str, Any]]
    worst: list[dict[str, Any]]
    hunted: list[dict[str, Any]]
    pictures: list[Path]


def read_audit(folder: RunFolder) -> AuditRecords:
    """Read the newest audit of a folder.

    Raises:
        DataError: If there is none, or a file is damaged.
    """
    summary = folder.read("audit.json", "title", "audit_key", "paper_key", "sound_key")
    rows = folder.rows("robustness.jsonl", "recipe", "attack", "eps_255")
    of = lambda name, key: [row for row in folder.rows(name, "recipe") if row["recipe"] == key]  # noqa: E731
    return AuditRecords(
        path=folder.path,
        summary=summary,
        checks=of("audit.jsonl", summary["audit_key"]),
        paper=[row for row in rows if row["recipe"] == summary["paper_key"]],
        worst=[row for row in rows if row["recipe"] == summary["sound_key"]],
        hunted=of("sound.jsonl", summary["sound_key"]),
        pictures=sorted((folder.path / f"adversarial-{summary['sound_key']}").glob("*.png")),
    )


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

    def names(self, part: str) -> list[str]:
        """Return the names of the cells of a part, in order."""
        return list(dict.fromkeys(cell.name for cell in self.cells if part in cell.parts))

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
    return GridRecords(folder, *(listing[key] for key in keys[:4]), changes, cells, table3)


def _grid_cell(root: Path, entry: dict[str, Any]) -> GridCell:
    places = [] if entry["folder"] is None else [root / entry["folder"], root.parent / entry["folder"]]
    found = next((RunFolder(place) for place in places if (place / "evaluation.json").is_file()), None)
    run = None if found is None else read_run(found, entry["attack"])
    same = ("name", "about", "seed", "folder", "paper", "compared", "failed", "depth", "temperature", "t1")
    solvers = () if found is None else tuple(found.rows("solvers.jsonl", "name", "accuracy", "difference"))
    return GridCell(**{key: entry[key] for key in same}, parts=tuple(entry["parts"]), run=run, solvers=solvers)
