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
        grids = sorted(path.parent.name for path in root.glob("*/grid.json"))
        known = ", ".join(matching or [*experiments_named(root, "*"), *grids]) or "none; run a recipe first"
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
