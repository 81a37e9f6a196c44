"""A scale beside the paper, field by field: nothing is made smaller without being printed beside the paper's value."""

from collections.abc import Mapping
from typing import Any

from nodestill.data import Dataset
from nodestill.experiments.plain import to_plain
from nodestill.reproduction.scales import LONG, Scale, ScaleName, scale_named, scaled


def changes(scale: Scale, dataset: Dataset, depth: int, temperature: float) -> list[tuple[str, str, str]]:
    """Return every field in which a scale differs from the paper: what it is, its value here, the paper's value.

    Horizons of 1 and of 100 are compared, since a scale may shrink them differently.
    """
    found: dict[str, tuple[str, str]] = {}
    for t1 in (1.0, LONG):
        ours, theirs = (
            _flat(to_plain(_of(which, dataset, depth, temperature, t1))) for which in (scale, scale_named(ScaleName.PAPER))
        )
        differing = {path: (ours.get(path), theirs.get(path)) for path in {**ours, **theirs}}
        where = "" if t1 < LONG else f", t1 = {LONG:g} and more"
        for path, (here, there) in differing.items():
            if here != there and found.get(path) != (_text(path, here), _text(path, there)):
                found[path + where] = (_text(path, here), _text(path, there))
    return [(path, *values) for path, values in found.items()]


def _of(scale: Scale, dataset: Dataset, depth: int, temperature: float, t1: float) -> dict[str, Any]:
    recipe = scaled(scale, dataset, depth, temperature, t1)
    parts = to_plain(recipe)
    return {name: parts[name] for name in ("dataset", "teacher", "student", "undistilled", "robustness")}


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {path: value}
    return {key: found for name in value for key, found in _flat(value[name], f"{path}.{name}" if path else name).items()}


def _text(path: str, value: Any) -> str:
    if value is None:
        return "all" if path == "robustness.images" else "none"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
