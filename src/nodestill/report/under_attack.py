"""What attacks leave of models, read of their rows, and differences between models, image by image.

Two models are attacked on the same images, and each row says which of them stayed right. So the part of the images of an
interval is that of differences that were measured on each image.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from nodestill.experiments.records import RunRecords
from nodestill.flags import from_hex
from nodestill.intervals import paired_interval
from nodestill.report.formats import joined
from nodestill.report.spread import Hits, Measured, Spread, combined
from nodestill.reproduction.grid_records import GridRecords

_ATTACKS = ("pgd", "mi-fgsm")  # the paper's
_SPENT = 0.01  # nothing is left of an accuracy below that


def attacked(attack: str, eps_255: int, first: int | None = None) -> Measured:
    """Return what reads how many images are right under an attack at a radius, of the first so many or of all attacked."""

    def measured(run: RunRecords) -> Hits | None:
        rows = [row for row in run.robustness if row["attack"] == attack and row["eps_255"] == eps_255]
        return _right(rows[0], first) if rows else None

    return measured


def mean_under_attack(first: int | None = None) -> Measured:
    """Return what reads the mean accuracy over all radii above zero and the paper's attacks, as hits of the attacked images."""

    def measured(run: RunRecords) -> Hits | None:
        known = [right for row in _rows(run) if (right := _right(row, first)) is not None]
        if not known or len(known) < len(_rows(run)):
            return None
        return sum(right for right, _ in known) / len(known), known[0][1]

    return measured


def difference_under_attack(records: GridRecords, one: str, other: str) -> Spread | None:
    """Return one cell's mean accuracy over radii and attacks less another's, on the images that both were attacked on.

    A run whose attack is not finished is left out: one that lacks a radius or an attack that another run of the grid has.
    """
    runs = {name: records.runs(name) for name in (one, other)}
    every = [run for of_seeds in runs.values() for run in of_seeds.values()]
    counts = [row["images"] for run in every for row in run.robustness]
    whole = set().union(*(_places(cell.run) for cell in records.cells if cell.run is not None))
    if not counts:
        return None
    first = min(counts)

    def measured(run: RunRecords) -> Hits | None:
        return mean_under_attack(first)(run) if _places(run) == whole else None

    def of_images(seeds: Sequence[int], z: float) -> tuple[float, float] | None:
        pairs = [(shares_right(runs[one][seed], first), shares_right(runs[other][seed], first)) for seed in seeds]
        gaps = [[left - right for left, right in zip(*pair)] for pair in pairs if all(pair)]
        return paired_interval([sum(gap) / len(gap) for gap in zip(*gaps)], z) if len(gaps) == len(seeds) else None

    return combined({one: 1.0, other: -1.0}, records, measured, of_images=of_images)


def shares_right(run: RunRecords, first: int) -> list[float]:
    """Return of each of the first images the share of radii and attacks at which it stays right; none if a row lacks it."""
    rows = _rows(run)
    if not all(row.get("which") for row in rows):
        return []
    return [sum(flags) / len(rows) for flags in zip(*(from_hex(row["which"], first) for row in rows))]


def measured_radius(records: GridRecords, names: Sequence[str], wanted: int) -> int:
    """Return the radius in 1/255, of those of models attacked by PGD, that is nearest to the wanted one; that one, if none."""
    runs = [run for name in names for run in records.runs(name).values()]
    radii = {row["eps_255"] for run in runs for row in _rows(run) if row["attack"] == "pgd"}
    return min(radii or {wanted}, key=lambda eps: (abs(eps - wanted), eps))


def about_spent_radii(records: GridRecords) -> tuple[str, ...]:
    """Return a note on radii at which no attacked model is right on one image in a hundred; none if there are no such."""
    shares: dict[int, float] = {}
    for row in (row for cell in records.cells if cell.run is not None for row in _rows(cell.run)):
        shares[row["eps_255"]] = max(shares.get(row["eps_255"], 0.0), row["accuracy"])
    spent = [f"{eps}/255" for eps, share in sorted(shares.items()) if share < _SPENT]
    at = f"At {joined(spent)} every model is below 1 %: these radii count in means over radii as all others do, and pull them "
    return (f"{at}and their differences towards zero.",) if spent else ()


def _rows(run: RunRecords) -> list[Mapping[str, Any]]:
    """Return the rows of the paper's attacks at radii above zero."""
    return [row for row in run.robustness if row["eps_255"] > 0 and row["attack"] in _ATTACKS]


def _places(run: RunRecords) -> set[tuple[str, int]]:
    return {(row["attack"], row["eps_255"]) for row in _rows(run)}


def _right(row: Mapping[str, Any], first: int | None) -> tuple[int, int] | None:
    """Return how many of the first images are right; none if the row does not say which."""
    if first is None or first == row["images"]:
        return row["correct"], row["images"]
    return (sum(from_hex(row["which"], first)), first) if row.get("which") and first < row["images"] else None
