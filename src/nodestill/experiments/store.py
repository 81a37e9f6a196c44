"""Run folders: one folder a model, named by what it depends on, written so that a kill at any moment loses nothing finished.

    recipe.json  environment.json  training.jsonl  evaluation.json  robustness.jsonl  solvers.jsonl  gallery.json
    weights.safetensors  lessons/ (of a teacher; `kept_lessons`)
    state.safetensors (to resume; removed when done)   DONE (written last)   ROWS (in its place: rows without weights)

Every file is written under a temporary name and renamed.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nodestill.errors import DataError
from nodestill.experiments.plain import to_plain
from nodestill.whole_files import write_whole

DIVERGED = "diverged.json"  # why a training failed by its rate


@dataclass(frozen=True)
class RunFolder:
    """The folder of one model."""

    path: Path

    @property
    def is_done(self) -> bool:
        """Whether the model is trained and evaluated."""
        return (self.path / "DONE").is_file()

    @property
    def is_measured(self) -> bool:
        """Whether its rows are there, with the model or without: ROWS marks rows that came without weights."""
        return self.is_done or (self.path / "ROWS").is_file()

    @property
    def has_diverged(self) -> bool:
        """Whether it is of a training that was to choose a rate, and failed by its rate: nothing else will come."""
        return (self.path / DIVERGED).is_file()

    def forget_rows(self) -> None:
        """Remove rows that came without weights: what is measured anew is of another training.

        Its evaluation goes last, after the mark that it counts: whoever looks on meets no mark without it.
        """
        if (self.path / "ROWS").is_file():
            for name in ("robustness.jsonl", "solvers.jsonl", "gallery.json", "training.jsonl", "ROWS", "evaluation.json"):
                (self.path / name).unlink(missing_ok=True)

    def write(self, name: str, value: Any) -> None:
        """Write a value as JSON."""
        self.write_bytes(name, (json.dumps(to_plain(value), indent=1) + "\n").encode())

    def read(self, name: str, *fields: str) -> Any:
        """Return the JSON value of a file; if fields are named, a table that has them.

        Raises:
            DataError: If it is missing or damaged.
        """
        path = self.path / name
        try:
            return _with_fields(json.loads(path.read_text(encoding="utf-8")), fields)
        except FileNotFoundError:
            raise DataError(f"{path} is missing. Run the recipe that made this folder again, or remove the folder.") from None
        except (ValueError, OSError) as error:
            raise DataError(f"{path} is damaged ({error}). Remove the folder {self.path} and run its recipe again.") from None

    def rows(self, name: str, *fields: str) -> list[dict]:
        """Return the rows of a JSON-lines file, each with the fields named; none if there is no file."""
        path = self.path / name
        if not path.exists():
            return []
        try:
            return [_with_fields(json.loads(line), fields) for line in path.read_text(encoding="utf-8").splitlines() if line]
        except (ValueError, OSError) as error:
            raise DataError(f"{path} is damaged ({error}). Remove this file and run its recipe again.") from None

    def append(self, name: str, row: Any) -> None:
        """Add a row to a JSON-lines file."""
        self.write_rows(name, [*self.rows(name), to_plain(row)])

    def write_rows(self, name: str, rows: Sequence[Any]) -> None:
        """Write a JSON-lines file."""
        self.write_bytes(name, "".join(json.dumps(to_plain(row)) + "\n" for row in rows).encode())

    def finish(self) -> None:
        """Mark the folder as done and remove what only a resume needs."""
        self.mark("DONE")
        (self.path / "state.safetensors").unlink(missing_ok=True)

    def mark(self, name: str) -> None:
        """Write an empty file: DONE where a model is finished, ROWS where only its rows are there."""
        self.write_bytes(name, b"")

    def save_weights(self, model: nn.Module) -> None:
        """Write the parameters and buffers of a model."""
        self.save_tensors("weights.safetensors", model.state_dict())

    def load_weights(self, model: nn.Module) -> None:
        """Fill a model with the weights of this folder.

        Raises:
            DataError: If they are missing, damaged, or of another model.
        """
        tensors, path = self.load_tensors("weights.safetensors"), self.path / "weights.safetensors"
        try:
            model.load_state_dict(tensors)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise DataError(f"{path} does not fit its recipe ({reason}). Remove {self.path} and run again.") from None

    def save_state(self, model: nn.Module, optimizer: torch.optim.Optimizer, epochs_done: int) -> None:
        """Write what a resume needs, in one file."""
        tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
        for key, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{key}.{name}": torch.as_tensor(v) for name, v in state.items() if v is not None}
        self.save_tensors("state.safetensors", tensors, {"epochs_done": str(epochs_done)})

    def load_state(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Fill model and optimiser with what was saved and return the epochs done; 0 if nothing was.

        Raises:
            DataError: If it is damaged, or of another model.
        """
        path = self.path / "state.safetensors"
        if not path.exists():
            return 0
        tensors = self.load_tensors(path.name)
        try:
            done = int(self._metadata(path.name)["epochs_done"])
            model.load_state_dict({name[6:]: value for name, value in tensors.items() if name.startswith("model.")})
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": _optimizer_state(tensors), "param_groups": groups})
        except (KeyError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise DataError(f"{path} does not fit its recipe ({reason}). Remove {self.path} and run again.") from None
        return done

    def save_tensors(self, name: str, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
        """Write named tensors."""
        from safetensors.torch import save

        self.write_bytes(name, save({key: value.detach().contiguous() for key, value in tensors.items()}, metadata))

    def load_tensors(self, name: str) -> dict[str, Tensor]:
        """Return the tensors of a file; raises `DataError` if it is missing or damaged."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(self.path / name)
        except FileNotFoundError:
            raise DataError(f"{self.path / name} is missing. Run the recipe that made this folder again.") from None
        except (SafetensorError, OSError) as error:
            raise DataError(f"{self.path / name} is damaged ({error}). Remove {self.path} and run again.") from None

    def _metadata(self, name: str) -> dict[str, str]:
        from safetensors import safe_open

        with safe_open(self.path / name, "pt") as file:
            return file.metadata() or {}

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all; raises `DataError`."""
        try:
            write_whole(self.path / name, content)
        except OSError as error:
            raise DataError(
                f"Cannot write {self.path / name}: {error.strerror or error}. Everything finished before is kept: "
                "make room or choose another folder with --store, and run the same command again."
            ) from None


def _with_fields(value: Any, fields: Sequence[str]) -> Any:
    missing = [field for field in fields if not isinstance(value, dict) or field not in value]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")
    return value


def _optimizer_state(tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """Return the optimiser's state by number of the parameter, from tensors named optimizer.<number>.<field>."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, key, field = name.split(".", 2)
            state.setdefault(int(key), {})[field] = value
    return state


@dataclass(frozen=True)
class Store:
    """The folder that holds all run folders."""

    root: Path

    def folder(self, name: str) -> RunFolder:
        """Return a run folder by name; it need not exist."""
        return RunFolder(self.root / name)
