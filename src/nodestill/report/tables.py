"""Tables of an experiment: rows of records in, cells of text out, as lists, Markdown or HTML."""

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from nodestill.experiments.records import Experiment, RunRecords
from nodestill.report.formats import (
    NOTHING,
    attack_name,
    count,
    duration,
    evaluations,
    interval,
    joined,
    magnitude,
    percent,
    radius,
)
from nodestill.report.select import attacks_of, label, provenance, role_name, row_at, table_radii, training_seconds

NOTHING_PUBLISHED: Mapping[str, float] = MappingProxyType({})

Column = tuple[str, Callable[[RunRecords], str]]


@dataclass(frozen=True)
class Table:
    """A table ready for print.

    Attributes:
        headers: One per column.
        rows: Cells of text; the first `text_columns` of each row are words, the others numbers.
        notes: Sentences that belong below it.
        keys: What each row is about, as a CSS class; as many as rows, or none.
        text_columns: How many columns hold words.
    """

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    text_columns: int = 1

    def cells(self) -> list[list[str]]:
        """Return the header row and all other rows."""
        return [list(self.headers), *[list(row) for row in self.rows]]

    def to_markdown(self) -> str:
        """Return the table as Markdown, notes below."""
        lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in self.cells()]
        rule = "|" + "|".join(" --- " if i < self.text_columns else " ---: " for i in range(len(self.headers))) + "|"
        notes = ["", *[f"- {note}" for note in self.notes]] if self.notes else []
        return "\n".join([lines[0], rule, *lines[1:], *notes]) + "\n"

    def to_html(self) -> str:
        """Return the table element, without its notes; everything is escaped."""
        head = "".join(self._cell("th", i, text) for i, text in enumerate(self.headers))
        keys = self.keys or ("",) * len(self.rows)
        body = [
            f'<tr class="{html.escape(key)}">' + "".join(self._cell("td", i, text) for i, text in enumerate(row)) + "</tr>"
            for key, row in zip(keys, self.rows)
        ]
        return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"

    def _cell(self, tag: str, column: int, text: str) -> str:
        scope = ' scope="col"' if tag == "th" else ""
        kind = "words" if column < self.text_columns else "number"
        return f'<{tag} class="{kind}"{scope}>{html.escape(text)}</{tag}>'


def accuracy_table(experiment: Experiment, published: Mapping[str, float] = NOTHING_PUBLISHED) -> Table:
    """Return the table of all models: accuracy, what attacks leave of it, and what it costs.

    Args:
        experiment: The models, teacher first.
        published: The paper's clean accuracy in percent by role, where the recipe is one of its cells.
    """
    columns = [*_accuracy_columns(published), *_attack_columns(experiment.runs), *_cost_columns()]
    filled = [(name, [cell(run) for run in experiment.runs]) for name, cell in columns]
    kept = [(name, cells) for name, cells in filled if set(cells) != {NOTHING}]
    return Table(
        headers=tuple(name for name, _ in kept),
        rows=tuple(zip(*[cells for _, cells in kept])),
        notes=_notes(experiment.runs),
        keys=tuple(run.role for run in experiment.runs),
        text_columns=2,
    )


def _accuracy_columns(published: Mapping[str, float]) -> list[Column]:
    return [
        ("Role", role_name),
        ("Model", lambda run: run.title),
        ("Clean", lambda run: percent(run.evaluation["clean"]["accuracy"])),
        ("95 % interval", _clean_interval),
        ("Paper", lambda run: f"{published[run.role]:.2f} %" if run.role in published else NOTHING),
    ]


def _clean_interval(run: RunRecords) -> str:
    clean = run.evaluation["clean"]
    return interval(clean["accuracy_low"], clean["accuracy_high"])


def _attack_columns(runs: Sequence[RunRecords]) -> list[Column]:
    return [_attack_column(attack, eps) for attack in attacks_of(runs) for eps in table_radii(runs)]


def _attack_column(attack: str, eps_255: int) -> Column:
    def cell(run: RunRecords) -> str:
        row = row_at(run, attack, eps_255)
        return percent(row["accuracy"]) if row else NOTHING

    return f"{attack_name(attack)} {radius(eps_255)}", cell


def _cost_columns() -> list[Column]:
    return [
        ("Agrees with teacher", lambda run: percent(run.evaluation["clean"]["agreement"])),
        ("Parameters", lambda run: magnitude(run.evaluation["cost"]["parameters"])),
        ("MACs", lambda run: magnitude(run.evaluation["cost"]["macs"])),
        ("NFE", lambda run: evaluations(run.evaluation.get("evaluations"))),
        ("Training", lambda run: duration(training_seconds(run))),
    ]


def _notes(runs: Sequence[RunRecords]) -> tuple[str, ...]:
    images = joined(sorted({count(run.evaluation["clean"]["images"]) for run in runs}))
    data = joined(sorted({provenance(run) for run in runs}))
    notes = [f"Clean: share of all {images} test images ({data}) that are classified right, with its 95 % Wilson interval."]
    if attacks_of(runs):
        attacked = joined(sorted({count(row["images"]) for run in runs for row in run.robustness}))
        moved = "still classified right when every pixel may move by that much"
        notes.append(f"{_names(runs)}: share of {attacked} test images {moved}.{_unaudited(runs)}")
    notes.append("MACs: multiply-accumulates of one image.")
    if any(run.evaluation.get("evaluations") for run in runs):
        notes[-1] = "MACs: multiply-accumulates of one image; for a Neural ODE stem + NFE × f + head."
        notes.append("NFE: calls of f per clean test image, mean (smallest–largest).")
    return (*notes, *_failures(runs))


def _unaudited(runs: Sequence[RunRecords]) -> str:
    without = [label(run) for run in runs if run.robustness and run.audit is None]
    everyone = len(without) == len([run for run in runs if run.robustness])
    return "" if not without else " Not audited." if everyone else f" Not audited: {joined(without)}."


def _names(runs: Sequence[RunRecords]) -> str:
    return joined([attack_name(attack) for attack in attacks_of(runs)])


def _failures(runs: Sequence[RunRecords]) -> list[str]:
    failed = [(role_name(run), run.evaluation["clean"]["failed"]) for run in runs]
    return [f"{name}: {count(number)} clean images without finite logits count as wrong." for name, number in failed if number]
