"""The protocol `sound` on a model: rows as they come, the curve, a table of images, pictures of what fooled it."""

import io
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nodestill.attacks import (
    AttackName,
    Hunt,
    ImageFallen,
    SoundRow,
    WorstCase,
    hunt_down,
    predictions,
    start,
    worst_case_curve,
)
from nodestill.attacks.tries import NEVER
from nodestill.experiments.alone import alone_in
from nodestill.experiments.attack_recipe import RobustnessRecipe
from nodestill.experiments.attacked import Attacked
from nodestill.experiments.plain import to_plain
from nodestill.experiments.processes import Watch

PICTURES = 64  # adversarial images kept as PNG


def attack_soundly(attacked: Attacked, asked: RobustnessRecipe, watch: Watch) -> bool:
    """Hunt a model's images down, and keep what was found.

    In the model's folder: `sound.jsonl` has a row for each attack and radius, written once it is complete, so that a killed
    hunt goes on; `robustness.jsonl` the curve; `images-KEY.parquet` a line for each image; `adversarial-KEY/` the first images
    that fell, as PNG.

    Args:
        attacked: The model with its images.
        asked: Attacks, radii, images, batch, seed and effort.
        watch: Told of progress as (task, done, total, note).

    Returns:
        Whether there was anything to do.
    """
    key = attacked.key(asked)
    if _finished(attacked, asked, key):
        return False
    with alone_in(attacked.folder.path):
        _attack_soundly(attacked, asked, key, watch)
    return True


def _attack_soundly(attacked: Attacked, asked: RobustnessRecipe, key: str, watch: Watch) -> None:
    folder = attacked.folder
    data = attacked.data if asked.images is None else attacked.data.first(asked.images)
    hunt = Hunt(attacked.subject, data, asked.batch_size, asked.effort, asked.seed, attacked.kin)
    relatives = list(attacked.relatives) if AttackName.TRANSFER in asked.attacks else []
    marks = {"recipe": key, "relatives": relatives, "data": attacked.identity.provenance}
    state, rows = start(hunt), _rows_of(folder.rows("sound.jsonl", "recipe", "relatives"), marks)
    total = len(asked.attacks) * len(asked.eps_255)
    album = _Album(folder.path / f"adversarial-{key}", attacked, hunt)
    task = f"attack {attacked.title}"
    watch(task, len(rows), total, "")
    for row in hunt_down(hunt, asked.attacks, asked.eps_255, state=state, done=rows, on_fallen=album.keep):
        folder.append("sound.jsonl", {**to_plain(row), **marks})
        rows.append(row)
        watch(task, min(len(rows), total), total, f"{row.attack} {row.eps_255}/255")
    for row in rows:
        state = state.after(row)
    folder.write_bytes(f"images-{key}.parquet", _table(hunt, state, album))
    curve = [{**to_plain(line), **marks} for line in worst_case_curve(hunt, asked.attacks, asked.eps_255, rows, state)]
    others = [row for row in folder.rows("robustness.jsonl", "recipe") if row["recipe"] != key]
    folder.write_rows("robustness.jsonl", others + curve)  # all at once: a kill leaves the old file or the new
    watch(task, total, total, "")


def _finished(attacked: Attacked, asked: RobustnessRecipe, key: str) -> bool:
    relatives = list(attacked.relatives) if AttackName.TRANSFER in asked.attacks else []
    rows = [row for row in attacked.folder.rows("robustness.jsonl", "recipe", "eps_255") if row["recipe"] == key]
    return {row["eps_255"] for row in rows if row["relatives"] == relatives} >= set(asked.eps_255)


def _rows_of(plain: list[dict[str, Any]], marks: dict[str, Any]) -> list[SoundRow]:
    names = [each.name for each in fields(SoundRow)]
    mine = [row for row in plain if (row["recipe"], row["relatives"]) == (marks["recipe"], marks["relatives"])]
    chosen = [{name: row[name] for name in names} for row in mine]
    return [SoundRow(**{**row, "fooled": tuple(row["fooled"]), "radii_255": tuple(row["radii_255"])}) for row in chosen]


class _Album:
    """Keeps the first images that fall as PNG, and remembers which of them still fool once rounded to bytes."""

    def __init__(self, folder: Path, attacked: Attacked, hunt: Hunt) -> None:
        self.folder, self._subject, self._data = folder, attacked.subject, hunt.data
        self.kept = {int(path.name.split("-")[0]): path.name for path in sorted(folder.glob("*.png"))}

    def keep(self, fallen: ImageFallen) -> None:
        """Write pictures of images that fell, as long as there are not too many."""
        for place, eps, image in zip(fallen.places.tolist(), fallen.radii_255.tolist(), fallen.images):
            if place in self.kept or len(self.kept) < PICTURES:
                self._write(place, f"eps{eps}-{fallen.attack.value}", image)

    def _write(self, place: int, how: str, image: Tensor) -> None:
        from PIL import Image

        self.folder.mkdir(parents=True, exist_ok=True)
        if place in self.kept:
            (self.folder / self.kept[place]).unlink(missing_ok=True)
        pixels = (image * 255).round()
        with torch.no_grad():
            predicted = int(predictions(self._subject.logits(pixels[None] / 255))[0])
        fooled = "fools" if predicted != int(self._data.labels[place]) else "rounded-away"
        name = f"{place:05d}-{how}-{fooled}.png"
        Image.fromarray(pixels.byte().permute(1, 2, 0).contiguous().cpu().numpy()).save(self.folder / name)
        self.kept[place] = name


def _table(hunt: Hunt, state: WorstCase, album: _Album) -> bytes:
    """Return a parquet file with a line for each image: its class, the smallest radius at which it fell, and to what."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    radius = [None if value == NEVER else value for value in state.radius_255.tolist()]
    labels = hunt.data.labels.tolist()
    columns = {
        "place": list(range(len(labels))),
        "label": labels,
        "class": [hunt.data.class_names[label] for label in labels],
        "smallest_fooling_eps_255": radius,
        "fell_to": list(state.by),
        "picture": [album.kept.get(place) for place in range(len(labels))],
    }
    pq.write_table(pa.table(columns), file := io.BytesIO())
    return file.getvalue()
