"""Which of the aims for the solver's speed are met? Read from the rows of solve_speed.py; nothing is measured here.

An aim counts as met by a contender whose errors of state and gradients are no larger than torchdiffeq's in the same rows.
Beside it stand the best whose errors are no larger than those of torchdiffeq under autocast, which rounds as our bfloat16 does,
and the best whatever its error, so that what the condition costs can be seen. All speeds and memories are against torchdiffeq
in float32.
"""

from collections.abc import Callable
from typing import NamedTuple

from rows import markdown
from solve_speed import SETTINGS

ERRORS = ("state_error", "input_gradient_error", "weight_gradient_error")


class Aim(NamedTuple):
    """A figure to reach: which of our rows may reach it, how it is read from one, and how large it should be."""

    name: str
    must: float
    of: str  # part of the contender's name
    figure: Callable[[dict, dict], float]  # of the contender's row and torchdiffeq's
    at_most: bool = False


def _aims(channels: int, horizon: float) -> list[Aim]:
    found = []
    for precision, forward, direct, recompute in (
        ("bfloat16", 5, 3.5, 3.0),
        ("float32", 3, 2.3, 1.6 if channels > 64 else 1.8),
    ):
        if horizon == 1:
            direct_name, recompute_name = f"{precision}, direct", f"{precision}, recompute"
            found += [Aim(f"forward, {precision}", forward, recompute_name, _forward)] if channels == 64 else []
            found += [Aim(f"forward per evaluation, {precision}", 2, recompute_name, _each)] if channels == 64 else []
            found += [Aim(f"training step, direct, {precision}", direct, direct_name, _training)]
            found += [Aim(f"training step, recompute, {precision}", recompute, recompute_name, _training)]
            found += [Aim(f"memory, direct, {precision}", 1 / 2, direct_name, _memory, True)]
            found += [Aim(f"memory, recompute, {precision}", 1 / 4, recompute_name, _memory, True)]
            bare = 1.2 if channels == 64 else 1.1
            found += [Aim(f"forward over bare convolutions, {precision}", bare, recompute_name, _over_bare, True)]
            found += [Aim(f"training over bare convolutions, {precision}", bare, direct_name, _training_over_bare, True)]
        else:
            must, name = (1.5 if precision == "bfloat16" else 1.0), f"{precision}, recompute"
            found += [Aim(f"training step, recompute, {precision}", must, name, _training)]
            found += [Aim(f"memory, recompute, {precision}", 1 / 10, name, _memory, True)]
    return found


def _forward(row: dict, rival: dict) -> float:
    return rival["forward_seconds"] / row["forward_seconds"]


def _each(row: dict, rival: dict) -> float:
    return _forward(row, rival) * row["calls_per_image"] / rival["calls_per_image"]


def _training(row: dict, rival: dict) -> float:
    return rival["training_seconds"] / row["training_seconds"]


def _memory(row: dict, rival: dict) -> float:
    return row["megabytes"] / rival["megabytes"]


def _over_bare(row: dict, rival: dict) -> float:
    return row["forward_over_bare"]


def _training_over_bare(row: dict, rival: dict) -> float:
    return row["training_over_bare"]


def targets_table(rows: list[dict]) -> str:
    """Return a line for each workload and aim."""
    heads = [
        "C",
        "Horizon",
        "Norm",
        "Aim",
        "Must",
        "At torchdiffeq's error",
        "By",
        "At its autocast's error",
        "By",
        "At any",
        "By",
    ]
    lines = [heads, ["---"] * len(heads)]
    for key in dict.fromkeys(tuple(row[k] for k in SETTINGS) for row in rows):
        some = {row["contender"]: row for row in rows if tuple(row[k] for k in SETTINGS) == key}
        channels, horizon, norm, *_ = key
        for aim in _aims(channels, horizon):
            sign = "≤" if aim.at_most else "≥"
            cells = [cell for bound in ("torchdiffeq", "torchdiffeq autocast", None) for cell in _best(aim, some, bound)]
            lines.append([str(channels), f"{horizon:g}", norm, aim.name, f"{sign} {aim.must:.2f}", *cells])
        lines += [[str(channels), f"{horizon:g}", norm, *price] for price in _price_of_control(some)]
    return markdown(lines)


def _best(aim: Aim, rows: dict[str, dict], bound: str | None) -> tuple[str, str]:
    rival = rows["torchdiffeq"]
    ours = [row for name, row in rows.items() if name.startswith("ours") and name.endswith(aim.of)]
    if bound is not None:
        ours = [row for row in ours if all(row[k] <= rows[bound][k] for k in ERRORS)]
    if not ours:
        return "none", "–"
    best = (min if aim.at_most else max)(ours, key=lambda row: aim.figure(row, rival))
    value = aim.figure(best, rival)
    met = value <= aim.must if aim.at_most else value >= aim.must
    return f"{value:.2f}{'' if met else ' (missed)'}", best["contender"].removeprefix("ours ").removesuffix(f", {aim.of}")


def _price_of_control(rows: dict[str, dict]) -> list[list[str]]:
    name = "ours dopri5 0.001, {}, first step probed"
    if name.format("shared") not in rows:
        return []
    per_image, shared = (rows[name.format(control)]["forward_seconds"] for control in ("per_image", "shared"))
    value = per_image / shared
    met = "" if value <= 1.1 else " (missed)"
    return [["forward, per-image over shared control", "≤ 1.10", f"{value:.2f}{met}", "dopri5 0.001, probed", *[""] * 4]]
