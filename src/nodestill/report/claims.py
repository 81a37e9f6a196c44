"""Every claim in the paper's sentences, and what the rows of a grid say of it: supported, contradicted or undecided here."""

from collections.abc import Callable
from dataclasses import dataclass

from nodestill.report.judges import (
    TEACHER,
    Judged,
    beats_its_teacher,
    by_teacher,
    by_temperature,
    depth,
    falls_with_the_horizon,
    gain,
    gain_by_the_same,
    mechanism,
    more_robust,
    remains,
    resists,
)
from nodestill.report.spread import about_intervals
from nodestill.report.tables import Table
from nodestill.reproduction.grid_records import GridRecords


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


def claims_table(grid: GridRecords) -> Table:
    """Return every claim about the data set of a grid with its verdict and its rows."""
    judged = [(claim, claim.judge(grid)) for claim in claims() if grid.dataset in claim.datasets]
    rows = [(c.where, c.sentence, j.verdict.value, j.measured, _folders(grid, j.cells)) for c, j in judged]
    headers = ("Section", "The paper's claim", "Here", "Measured", "Rows")
    notes = (
        "Robustness is that under the paper's own attacks, which are weak: a model said to be robust is so under these, and "
        "its accuracies are upper bounds. `nodestill audit` says what they are worth.",
        about_intervals(grid),
    )
    return Table(headers, tuple(rows), notes=notes, keys=tuple(j.verdict.name.lower() for _, j in judged), text_columns=5)


def _folders(grid: GridRecords, names: tuple[str, ...]) -> str:
    return ", ".join(cell.folder or "" for name in names for _, cell in sorted(grid.named(name).items()))


def claims() -> tuple[Claim, ...]:
    """Return the claims, in the order of the paper; one that changes several things is followed by one that does not."""
    return (*_on_accuracy(), *_on_robustness(), *_on_horizons())


_CIFAR, _SVHN, _HELD = ("cifar10",), ("svhn",), ": the optimiser held."


def _on_accuracy() -> tuple[Claim, ...]:
    return (
        Claim("3.1", "The depth of Neural ODEs, their evaluations of f, is usually larger than the depth of ResNets.", depth),
        Claim("4.2", "Distillation improves the accuracy of Neural ODEs by 24.58 points.", gain(24.58), _CIFAR),
        Claim("4.2", "Distillation improves the accuracy of Neural ODEs by 5.17 points.", gain(5.17), _SVHN),
        Claim("4.2", f"Distillation improves the accuracy of Neural ODEs{_HELD}", gain_by_the_same),
        Claim("4.2", "No student outperforms its teacher.", beats_its_teacher(False), _CIFAR),
        Claim("4.2", "Some students outperform their teachers.", beats_its_teacher(True), _SVHN),
        Claim("4.2.1", "Results at a small temperature are inferior to those at a large one.", by_temperature(1), _CIFAR),
        Claim("4.2.1", "Increasing the temperature decreases the effect of distillation.", by_temperature(-1), _SVHN),
        Claim("4.2.2", "There is no particular pattern in the teacher's number of layers.", by_teacher),
    )


def _on_robustness() -> tuple[Claim, ...]:
    of_labels = "labels-sgd-scale"
    return (
        Claim("4.3.2", "Distillation improves the robustness of NODE(1).", more_robust(None, "node1")),
        Claim("4.3.2", f"Distillation improves the robustness of NODE(1){_HELD}", more_robust(None, of_labels)),
        Claim("4.3.2", "Distillation improves the robustness of NODE(100).", more_robust("kd-node100", "node100")),
        Claim("4.3.3", "Without distillation NODE(1) is not even as robust as ResNet.", more_robust("node1", TEACHER, -1)),
        Claim("4.3.3", "Without distillation NODE(100) is not as robust as ResNet.", more_robust("node100", TEACHER, -1)),
        Claim("4.3.3", "Distilled NODE(1) resists until ε is 8/255.", resists(None, 8), _CIFAR),
        Claim("4.3.3", "Distilled NODE(100) resists until ε is 20/255.", resists("kd-node100", 20), _CIFAR),
    )


def _on_horizons() -> tuple[Claim, ...]:
    by_adam = "kd-adam-scale"  # as all students of longer horizons
    return (
        Claim("4.3.3", "A longer horizon improves robustness (distilled).", more_robust("kd-node100", None)),
        Claim("4.3.3", f"A longer horizon improves robustness (distilled){_HELD}", more_robust("kd-node100", by_adam)),
        Claim("4.3.3", "A longer horizon improves robustness (undistilled).", more_robust("node100", "node1")),
        Claim("4.3.3", "It is the horizon that gives robustness, not how the gradients come about.", mechanism),
        Claim("4.3.3", "The effect of distillation falls slightly as the horizon grows.", falls_with_the_horizon),
        Claim("4.3.3", "NODE(500) keeps 20 % at ε = 20/255.", remains(20.24), _CIFAR),
        Claim("4.3.3", "NODE(500) is more robust than NODE(1), both undistilled.", more_robust("node500", "node1"), _CIFAR),
    )
