"""Which of the aims for the speed of the solver are met, and what is best? Read from the rows of solve_speed.py.

An aim counts as met by a contender whose errors of state and gradients are no larger than torchdiffeq's in the same rows.
Beside it stand the best whose errors are no larger than those of torchdiffeq under autocast, which rounds as our bfloat16 does,
and the best whatever its error, so that what the condition costs can be seen. All speeds and memories are against torchdiffeq
in float32. "≈" marks a contender whose errors are no larger within the doubt of the reference, not for certain.
"""

from collections.abc import Callable
from typing import NamedTuple

from rows import markdown
from solve_speed import SETTINGS, short_name

_WHERE = ("machine", "horizon", "channels", "norm")
ERRORS = ("state_error", "input_gradient_error", "weight_gradient_error")


class Aim(NamedTuple):
    """A figure to reach: which of our rows may reach it, how it is read from one, and how large it should be."""

    name: str
    must: float
    stretch: float | None
    of: str  # part of the contender's name
    figure: Callable[[dict, dict], float]  # of the contender's row and torchdiffeq's
    at_most: bool = False


def _aims(channels: int, horizon: float) -> list[Aim]:
    both = (_aims_of_one if horizon == 1 else _aims_of_long)(channels, "bfloat16")
    return [*both, *(_aims_of_one if horizon == 1 else _aims_of_long)(channels, "float32")]


def _aims_of_one(channels: int, precision: str) -> list[Aim]:
    low, small, bare = precision == "bfloat16", channels == 64, 1.2 if channels == 64 else 1.1
    direct, recompute = f"{precision}, direct", f"{precision}, recompute"
    slowest = 3.0 if low else 1.8 if small else 1.6
    forward = [
        Aim(f"forward, {precision}", 5 if low else 3, 8 if low else None, recompute, _forward),
        Aim(f"forward per evaluation, {precision}", 2, None, recompute, _each),
    ]
    return [
        *(forward if small else []),
        Aim(f"training step, direct, {precision}", 3.5 if low else 2.3, 6 if low else None, direct, _training),
        Aim(f"training step, recompute, {precision}", slowest, 5 if low else None, recompute, _training),
        Aim(f"memory, direct, {precision}", 1 / 2, None, direct, _memory, at_most=True),
        Aim(f"memory, recompute, {precision}", 1 / 4, None, recompute, _memory, at_most=True),
        Aim(f"forward over bare convolutions, {precision}", bare, 1.05, recompute, _over_bare, at_most=True),
        Aim(f"training over bare convolutions, {precision}", bare, 1.05, direct, _training_over_bare, at_most=True),
    ]


def _aims_of_long(channels: int, precision: str) -> list[Aim]:
    low, name = precision == "bfloat16", f"{precision}, recompute"
    return [
        Aim(f"training step, recompute, {precision}", 1.5 if low else 1.0, 3 if low else None, name, _training),
        Aim(f"memory, recompute, {precision}", 1 / 10, None, name, _memory, at_most=True),
    ]


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
    """Return how many aims are met, and a line for each workload and aim, those missed at torchdiffeq's error first."""
    heads = ["Machine", "C", "Horizon", "Norm", "Aim", "Must", "Stretch"]
    heads += [head for bound in ("At torchdiffeq's error", "At its autocast's error", "At any") for head in (bound, "By")]
    reached: dict[bool, list[list[str]]] = {False: [], True: []}
    met: dict[str, list[list[Found]]] = {}
    for key in dict.fromkeys(tuple(row[k] for k in SETTINGS) for row in rows):
        some = {row["contender"]: row for row in rows if tuple(row[k] for k in SETTINGS) == key}
        channels, horizon, norm, *_, machine = key
        where = [short_name(machine), str(channels), f"{horizon:g}", norm]
        for aim in _aims(channels, horizon):
            found = [_best(aim, some, bound) for bound in ("torchdiffeq", "torchdiffeq autocast", None)]
            met.setdefault(short_name(machine), []).append(found)
            cells = [cell for one in found for cell in (one.words, one.by)]
            reached[found[0].reached].append([*where, aim.name, *_asked(aim), *cells])
        for met_too, price in _price_of_control(some):
            reached[met_too].append([*where, *price])
    titles = {False: "Missed:", True: "Reached, with ≈ within the doubt:"}
    above = [heads, ["---"] * len(heads)]
    tables = [f"{titles[which]}\n\n{markdown([*above, *lines])}" for which, lines in reached.items() if lines]
    return "\n\n".join([*(_counted(machine, found) for machine, found in met.items()), *tables])


def _counted(machine: str, found: list[list["Found"]]) -> str:
    """Return in words how many aims are met on a machine under which condition."""
    sure = sum(at_its.reached and not at_its.doubtful for at_its, _, _ in found)
    within = sum(at_its.reached and at_its.doubtful for at_its, _, _ in found)
    larger = sum(any(one.reached for one in others) for at_its, *others in found if not at_its.reached)
    return (
        f"On the {machine}, of {len(found)} aims {sure} are met for certain at an error no larger than torchdiffeq's,\n"
        f"{within} more within the doubt of the reference (≈), {larger} at a larger error only, "
        f"{len(found) - sure - within - larger} at none."
    )


def _asked(aim: Aim) -> tuple[str, str]:
    sign = "≤" if aim.at_most else "≥"
    return f"{sign} {aim.must:.2f}", "–" if aim.stretch is None else f"{sign} {aim.stretch:.2f}"


class Found(NamedTuple):
    """The best figure under a condition on errors, whose it is, whether it reaches the aim, whether it is within the doubt."""

    words: str
    by: str
    reached: bool
    doubtful: bool


def _best(aim: Aim, rows: dict[str, dict], bound: str | None) -> Found:
    """Return the best of those that meet a condition for certain; if none of them reaches the aim, of all that may meet it."""
    ours = _ours(list(rows.values()), aim.of)
    sure, maybe = (
        [row for row in ours if bound is None or _no_worse(row, rows[bound], certain=certain)] for certain in (True, False)
    )
    tried = [_found(aim, some, rows["torchdiffeq"], doubtful=some is maybe and maybe != sure) for some in (sure, maybe) if some]
    return next((one for one in tried if one.reached), tried[0] if tried else Found("none (missed)", "–", False, False))


def _ours(rows: list[dict], of: str) -> list[dict]:
    return [row for row in rows if row["contender"].startswith("ours") and row["contender"].endswith(of)]


def _found(aim: Aim, rows: list[dict], rival: dict, *, doubtful: bool) -> Found:
    best = (min if aim.at_most else max)(rows, key=lambda row: aim.figure(row, rival))
    value = aim.figure(best, rival)
    reached = value <= aim.must if aim.at_most else value >= aim.must
    words = f"{'≈ ' if doubtful else ''}{value:.2f}{'' if reached else ' (missed)'}"
    return Found(words, best["contender"].removeprefix("ours ").removesuffix(f", {aim.of}"), reached, doubtful)


def _no_worse(row: dict, bound: dict, *, certain: bool) -> bool:
    """Return whether errors are no larger than those of another row, for certain or within the doubt of the reference."""
    state, gradient = row["doubt"]
    sign = -1 if certain else 1
    return all(row[k] <= bound[k] + sign * doubt for k, doubt in zip(ERRORS, (state, gradient, gradient)))


def short_table(rows: list[dict]) -> str:
    """Return a line for each workload and arithmetic: the best of ours that certainly errs no more than torchdiffeq."""
    heads = ["Machine", "f", "Arithmetic of f", "Forward", "Training step, DIRECT", "RECOMPUTE", "Its memory"]
    lines = [heads, ["---", "---", "---", *["---:"] * 4]]
    for key in sorted({tuple(row[k] for k in _WHERE) for row in rows}):
        some = [row for row in rows if tuple(row[k] for k in _WHERE) == key]
        machine, horizon, channels, norm = key
        name = f"C = {channels}{', GroupNorm' if norm == 'group' else ''}{f', horizon {horizon:g}' if horizon != 1 else ''}"
        lines += [[short_name(machine), name, precision, *_short(some, precision)] for precision in ("bfloat16", "float32")]
    return markdown(lines)


def _short(rows: list[dict], precision: str) -> list[str]:
    rival = next(row for row in rows if row["contender"] == "torchdiffeq")
    direct, recompute = (
        [row for row in _ours(rows, f"{precision}, {mode}") if _no_worse(row, rival, certain=True)]
        for mode in ("direct", "recompute")
    )
    speeds = [
        max((figure(row, rival) for row in some), default=None)
        for figure, some in ((_forward, direct + recompute), (_training, direct), (_training, recompute))
    ]
    memory = min((_memory(row, rival) for row in recompute), default=None)
    return [*("–" if x is None else f"{x:.1f}×" for x in speeds), "–" if memory is None else f"1/{1 / memory:.0f}"]


def _price_of_control(rows: dict[str, dict]) -> list[tuple[bool, list[str]]]:
    name = "ours dopri5 0.001, {}, first step probed"
    if name.format("shared") not in rows:
        return []
    per_image, shared = (rows[name.format(control)]["forward_seconds"] for control in ("per_image", "shared"))
    value = per_image / shared
    met = value <= 1.1
    words = f"{value:.2f}{'' if met else ' (missed)'}"
    return [(met, ["forward, per-image over shared control", "≤ 1.10", "≤ 1.00", words, "dopri5 0.001, probed", *[""] * 4])]
