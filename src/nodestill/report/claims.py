"""Every claim in the paper's sentences, and what the rows of a grid say of it: supported, contradicted or undecided here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from nodestill.report.formats import NOTHING
from nodestill.report.horizon_judges import depth, ends_at_five, falls_with_the_horizon, poorer_at_two
from nodestill.report.judges import (
    BY_ADAM,
    Judged,
    Row,
    Verdict,
    beats_its_teacher,
    below_residual_networks,
    by_teacher,
    by_temperature,
    gain,
    gain_by_the_same,
    limited_by_temperature,
)
from nodestill.report.robust_judges import TEACHER, mechanism, more_robust, remains, resists
from nodestill.report.select import chance
from nodestill.report.spread import awaits_seeds, mean_of, spread
from nodestill.report.tables import Table
from nodestill.report.under_attack import about_spent_radii
from nodestill.reproduction.grid_records import GridRecords

_FEW = 3  # cells that are named in the table itself


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper.

    Attributes:
        where: Its section.
        sentence: What it says.
        judge: What the rows of a grid say of it.
        datasets: Of which data sets it is said.
    """

    where: str
    sentence: str
    judge: Callable[[GridRecords], Judged]
    datasets: tuple[str, ...] = ("cifar10", "svhn")


def judged_claims(grid: GridRecords) -> list[tuple[Claim, Judged]]:
    """Return every claim about the data set of a grid with what its rows say."""
    return [(claim, _judged(claim, grid)) for claim in claims() if grid.dataset in claim.datasets]


def _judged(claim: Claim, grid: GridRecords) -> Judged:
    """Return what the rows say; nothing is decided by too little.

    That is one seed where others are to come, or one cell alone that has learned nothing that can be told from guessing.
    """
    found = claim.judge(grid)
    if found.verdict is Verdict.MISSING:
        return found
    alone = {name for name, _ in found.rows}
    if awaits_seeds(grid):
        return replace(found, verdict=Verdict.UNDECIDED, measured=f"{found.measured}; of one seed, others are to come")
    if len(alone) == 1 and not _has_learned(grid, *alone):
        return replace(found, verdict=Verdict.UNDECIDED, measured=f"{found.measured}; clean, it is not told from guessing")
    return found


def _has_learned(grid: GridRecords, name: str) -> bool:
    found = spread(grid, name)
    return found is not None and found.low > (mean_of(grid.named(name), chance) or 0.0)


def claims_table(grid: GridRecords) -> Table:
    """Return every claim about the data set of a grid with its verdict, and which cells its rows are of."""
    judged = judged_claims(grid)
    rows = [(c.where, c.sentence, j.verdict.value, j.measured, _in_short(j.rows)) for c, j in judged]
    headers = ("Section", "The paper's claim", "Here", "Measured", "Rows of")
    notes = (
        "Robustness is that under the paper's own attacks, which are weak: a model said to be robust is so under these, and "
        "its accuracies are upper bounds. `nodestill audit` says what they are worth.",
        "Rows of: the first cells, and how many trainings in all. The run folders of each claim are listed behind the numbers.",
        *about_spent_radii(grid),
    )
    return Table(headers, tuple(rows), notes=notes, keys=tuple(j.verdict.name.lower() for _, j in judged), text_columns=5)


def _in_short(rows: Sequence[Row]) -> str:
    """Return the first few cells of rows, and how many models there are in all."""
    names = list(dict.fromkeys(name for name, _ in rows))
    more = f", … ({len(names) - _FEW} more)" if len(names) > _FEW + 1 else ""
    return f"{', '.join(names[:_FEW] if more else names)}{more}; trainings: {len(rows)}" if rows else NOTHING


def evidence_table(grid: GridRecords) -> Table:
    """Return the run folders of every verdict, a cell a row."""
    rows = []
    for claim, judged in judged_claims(grid):
        for name in dict.fromkeys(name for name, _ in judged.rows):
            folders = _folders(grid, [row for row in judged.rows if row[0] == name])
            rows.append((claim.where, claim.sentence, name, folders))
    return Table(("Section", "The paper's claim", "Cell", "Run folders"), tuple(rows), text_columns=4)


def _folders(grid: GridRecords, rows: Sequence[Row]) -> str:
    """Return the run folders of rows; of a model that is several cells once."""
    found = (grid.named(name)[seed].folder or "" for name, seed in rows if seed in grid.named(name))
    return ", ".join(dict.fromkeys(found))


def claims() -> tuple[Claim, ...]:
    """Return the claims, in the order of the paper; one that changes several things is followed by one that does not."""
    return (*_on_accuracy(), *_on_robustness(), *_on_horizons())


_CIFAR, _SVHN, _HELD = ("cifar10",), ("svhn",), ": the optimiser held."


def _on_accuracy() -> tuple[Claim, ...]:
    return (
        Claim("3.1", "The depth of Neural ODEs, their evaluations of f, is usually larger than the depth of ResNets.", depth),
        Claim("3.2", "Under SGD an end time of 2 yields poorer distillation results than 1.", poorer_at_two),
        Claim("3.2", "The end time cannot be over 5 with distillation.", ends_at_five),
        Claim("4.1", "Without distillation Neural ODEs are less accurate than ResNets.", below_residual_networks),
        Claim("4.2", "Distillation improves the accuracy of Neural ODEs by 24.58 points.", gain(24.58), _CIFAR),
        Claim("4.2", "Distillation improves the accuracy of Neural ODEs by 5.17 points.", gain(5.17), _SVHN),
        Claim("4.2", f"Distillation improves the accuracy of Neural ODEs{_HELD}", gain_by_the_same),
        Claim("4.2", "No student outperforms its teacher.", beats_its_teacher(False), _CIFAR),
        Claim("4.2", "Some students outperform their teachers.", beats_its_teacher(True), _SVHN),
        Claim("4.2.1", "Results at a small temperature are inferior to those at a large one.", by_temperature(1), _CIFAR),
        Claim("4.2.1", "Beyond a certain temperature the improvement is limited.", limited_by_temperature, _CIFAR),
        Claim("4.2.1", "Increasing the temperature decreases the effect of distillation.", by_temperature(-1), _SVHN),
        Claim("4.2.2", "There is no particular pattern in the teacher's number of layers.", by_teacher),
    )


def _on_robustness() -> tuple[Claim, ...]:
    of_labels, long = "labels-sgd-scale", more_robust("kd-node100", TEACHER)
    not_above = more_robust("kd-node100", TEACHER, -1)
    return (
        Claim("4.3.2", "Distillation improves the robustness of NODE(1).", more_robust(None, "node1")),
        Claim("4.3.2", f"Distillation improves the robustness of NODE(1){_HELD}", more_robust(None, of_labels)),
        Claim("4.3.2", "Distillation improves the robustness of NODE(100).", more_robust("kd-node100", "node100")),
        Claim("4.3.3", "Without distillation NODE(1) is not even as robust as ResNet.", more_robust("node1", TEACHER, -1)),
        Claim("4.3.3", "Without distillation NODE(100) is not as robust as ResNet.", more_robust("node100", TEACHER, -1)),
        Claim("4.3.3", "Distilled NODE(100) is significantly robust (read: more so than ResNet).", long, _CIFAR),
        Claim("4.3.3", "Distilled NODE(100) does not outperform ResNet in robustness.", not_above, _SVHN),
        Claim("4.3.3", "Distilled NODE(1) resists until ε is 8/255.", resists(None, 8), _CIFAR),
        Claim("4.3.3", "Distilled NODE(100) resists until ε is 20/255.", resists("kd-node100", 20), _CIFAR),
    )


def _on_horizons() -> tuple[Claim, ...]:
    return (
        Claim("4.3.3", "A longer horizon improves robustness (distilled).", more_robust("kd-node100", None)),
        Claim("4.3.3", f"A longer horizon improves robustness (distilled){_HELD}", more_robust("kd-node100", BY_ADAM)),
        Claim("4.3.3", "A longer horizon improves robustness (undistilled).", more_robust("node100", "node1")),
        Claim("4.3.3", "It is the horizon that gives robustness, not how the gradients come about.", mechanism),
        Claim("4.3.3", "The effect of distillation falls slightly as the horizon grows.", falls_with_the_horizon),
        Claim("4.3.3", "NODE(500) keeps 20 % at ε = 20/255.", remains(20.24), _CIFAR),
        Claim("4.3.3", "NODE(500) is more robust than NODE(1), both undistilled.", more_robust("node500", "node1"), _CIFAR),
    )
