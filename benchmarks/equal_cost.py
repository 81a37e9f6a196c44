"""What do distillation and the equations bring at equal arithmetic? A table of the rows of time_to_accuracy.py."""

import statistics
from pathlib import Path

from nodestill.intervals import weighted_interval
from record import account
from rows import markdown


def with_command(rows: list[dict], folder: Path) -> list[dict]:
    """Return the rows, and that of the experiment in a folder as the distilled student, if none of its seed was trained here.

    It is the same recipe at the same arithmetic; its minutes are those of the whole command, with scoring.
    """
    found = account(folder)
    if any(row["contender"] == "distilled" and row["seed"] == found["seed"] for row in rows):
        return rows
    clean = {key: found["clean"][key] for key in ("images", "accuracy")}
    spent = {"flop": found["flop"], "seconds": 60 * found["minutes"]}
    ends = {"epochs": found["epochs"], "epoch": found["epochs"]}
    return [{"contender": "distilled", "seed": found["seed"], **ends, **spent, **clean}, *rows]


def table(rows: list[dict]) -> str:
    """Return what each contender spent and reached, and its difference to the distilled student of the same seeds.

    The interval is that of the difference over the test images, of all seeds together, as if each model had images of its own:
    wider than it need be. It does not say what another seed would have brought; with several seeds their range does.
    """
    last = [row for row in rows if row["epoch"] == row["epochs"]]
    distilled = {row["seed"]: row for row in last if row["contender"] == "distilled"}
    heads = ["Contender", "Seeds", "Epochs", "PFLOP", "Minutes", "at GFLOP/s", "Accuracy", "Range", "Minus distilled", "95 %"]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for name in dict.fromkeys(row["contender"] for row in last):
        own = [row for row in last if row["contender"] == name]
        pairs = [distilled[row["seed"]] for row in own if row["seed"] in distilled]
        lines.append([name, *_spent(own, rate(rows, name)), *_difference(own, pairs)])
    return markdown(lines)


def rate(rows: list[dict], contender: str) -> str:
    """Return how fast the machine was at bare convolutions while a contender was trained: the median over all epochs."""
    found = [row["gflops"] for row in rows if row["contender"] == contender and "gflops" in row]
    return f"{statistics.median(found):.0f}" if found else "–"


def _spent(own: list[dict], at: str) -> list[str]:
    shares = [100 * row["accuracy"] for row in own]
    flop, minutes = (statistics.mean(row[key] for row in own) for key in ("flop", "seconds"))
    figures = [str(len(own)), str(own[0]["epochs"]), f"{flop / 1e15:.2f}", f"{minutes / 60:.1f}", at]
    return [*figures, f"{statistics.mean(shares):.2f}", f"{min(shares):.2f} to {max(shares):.2f}"]


def _difference(own: list[dict], distilled: list[dict]) -> list[str]:
    if not distilled or own[0]["contender"] == "distilled":
        return ["–", "–"]
    seeds = {row["seed"] for row in distilled}
    sides = [[row for row in own if row["seed"] in seeds], distilled]
    counts = [
        (sum(round(row["accuracy"] * row["images"]) for row in side), sum(row["images"] for row in side)) for side in sides
    ]
    (hits, images), (of_distilled, as_many) = counts
    low, high = weighted_interval([(1.0, counts[0]), (-1.0, counts[1])])
    return [f"{100 * (hits / images - of_distilled / as_many):+.2f}", f"{100 * low:+.2f} to {100 * high:+.2f}"]
