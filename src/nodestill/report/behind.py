"""What stands behind the numbers: the folder and fingerprint of each run, its environment, every row of its sweep."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from nodestill.experiments.records import RunRecords
from nodestill.report.formats import NOTHING, attack_name, count, duration, interval, percent
from nodestill.report.select import fingerprint_of, label, rows_of
from nodestill.report.tables import Table


def runs_table(runs: Sequence[RunRecords]) -> Table:
    """Return where each model's rows lie and what they depend on."""
    headers = ("Model", "Run folder", "Fingerprint", "Attack recipe", "Seed", "Commit")
    rows = tuple(
        (
            label(run),
            run.path.name,
            fingerprint_of(run) or NOTHING,
            run.robustness[-1]["recipe"] if run.robustness else NOTHING,
            str(run.recipe.get("seed", NOTHING)),
            str(run.environment.get("commit") or NOTHING),
        )
        for run in runs
    )
    return Table(headers, rows, keys=tuple(run.role for run in runs), text_columns=len(headers))


def shared_environment(runs: Sequence[RunRecords]) -> str:
    """Return a sentence on what is equal in the environments of all runs."""
    shared = [f"{key} {_value(runs[0].environment.get(key))}" for key in _keys(runs) if key not in _differing(runs)]
    return f"Environment of all models: {'; '.join(shared)}." if shared else ""


def environment_table(runs: Sequence[RunRecords]) -> Table:
    """Return in what environments differ, and which models have which; no rows if all are equal."""
    keys = _differing(runs)
    names: dict[tuple[str, ...], list[str]] = {}
    for run in runs:
        names.setdefault(tuple(_value(run.environment.get(key)) for key in keys), []).append(label(run))
    rows = tuple((*values, _counted(some)) for values, some in names.items()) if keys else ()
    return Table((*keys, "Models"), rows, text_columns=len(keys) + 1)


def about_environments(runs: Sequence[RunRecords]) -> tuple[str, ...]:
    """Return both as Markdown, each if there is anything in it."""
    table = environment_table(runs)
    return tuple(part for part in (shared_environment(runs), table.to_markdown() if table.rows else "") if part)


def _keys(runs: Sequence[RunRecords]) -> list[str]:
    return list(dict.fromkeys(key for run in runs for key in run.environment))


def _differing(runs: Sequence[RunRecords]) -> list[str]:
    return [key for key in _keys(runs) if len({_value(run.environment.get(key)) for run in runs}) > 1]


def _counted(names: Sequence[str]) -> str:
    """Return each name once, with how often it is there: trainings of several seeds or rates have one name."""
    times = Counter(names)
    return ", ".join(name if number == 1 else f"{number} × {name}" for name, number in times.items())


def _value(value: Any) -> str:
    return NOTHING if value is None else str(value)


def sweep_table(run: RunRecords) -> Table:
    """Return every row of a run's robustness sweep."""
    headers = ("Attack", "ε · 255", "Steps", "Accuracy", "95 % interval", "Robust", "NFE", "Bad gradients", "Failed", "Time")
    attacks = dict.fromkeys(row["attack"] for row in run.robustness)
    rows = tuple(_sweep_row(row) for attack in attacks for row in rows_of(run, attack))
    notes = (
        "Accuracy: right at the last iterate, of all images. Robust: right on the clean image too. "
        "Bad gradients: images with a zero or non-finite gradient at some step. Failed: images without finite logits.",
    )
    return Table(headers, rows, notes)


def _sweep_row(row: dict[str, Any]) -> tuple[str, ...]:
    mean = row["mean_evaluations"]
    return (
        attack_name(row["attack"]),
        str(row["eps_255"]),
        str(row["steps"]),
        percent(row["accuracy"]),
        interval(row["wilson_low"], row["wilson_high"]),
        percent(row["robust_accuracy"]),
        NOTHING if mean is None else f"{mean:.1f}",
        count(row["bad_gradient_images"]),
        count(row["failed_images"]),
        duration(row["seconds"]),
    )
