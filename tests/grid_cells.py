"""Cells of the grid at any scale, and in which fields two of them differ."""

from functools import cache

from nodestill.data import Dataset
from nodestill.experiments import to_plain
from nodestill.reproduction import asked_reproduction
from nodestill.reproduction.grid import Cell, Grid
from nodestill.reproduction.scales import ScaleName, scale_named


def grid(dataset: Dataset = Dataset.CIFAR10, scale: ScaleName = ScaleName.PAPER, seed: int = 0) -> Grid:
    return Grid(dataset, scale_named(scale), seed)


@cache
def cells_of(part: str = "all", scale: str = "cpu", seeds: int = 1) -> tuple[Cell, ...]:
    """The cells of a part on CIFAR-10."""
    return tuple(asked_reproduction(part, "cifar10", scale, seeds).cells())


def flat(value: object, path: str = "") -> dict[str, object]:
    plain = to_plain(value)
    if not isinstance(plain, dict):
        return {path: plain}
    return {key: found for name, inner in plain.items() for key, found in flat(inner, f"{path}.{name}".lstrip(".")).items()}


def differing(one: object, other: object) -> set[str]:
    """Paths of the fields in which two values differ."""
    first, second = flat(one), flat(other)
    return {path for path in {*first, *second} if first.get(path) != second.get(path)}
