"""What the commands print of results: tables for a terminal, from rows and records."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nodestill.terminal import console, show_table

_BLIND = 0.05  # share of images without gradient above which an attack's number is not left without a word


def show_report(store: Path, name: str, out: Path | None = None, *, always: bool = True) -> None:
    """Print an experiment's table, and write its report, beside its recipe if not elsewhere, unless one is there already.

    Of a grid, all its tables.
    """
    from nodestill import experiments
    from nodestill.report import accuracy_table, write_report

    if (store / name / "grid.json").is_file():
        show_reproduction(store / name, "all", out)
        return
    experiment = experiments.read_experiment(store, name)
    published = experiments.published(experiments.from_plain(experiments.Recipe, experiment.recipe))
    table = accuracy_table(experiment, published)
    columns = list(zip(table.headers, *table.rows))  # models side by side: there are few, and many numbers of each
    show_table(columns[0], columns[1:])
    for note in table.notes:
        console.print(f"  {note}", style="dim", markup=False)
    out = out or store / experiment.name
    page = out if out.suffix == ".html" else out / "report.html"
    if always or not page.exists():
        page = write_report(experiment, out, published)
    console.print(f"Experiment: {experiment.name}\nReport: {page}", soft_wrap=True, markup=False)


def show_recipes() -> None:
    """Print all recipes."""
    from nodestill import experiments

    rows = []
    for recipe in experiments.recipes().values():
        percent = experiments.published(recipe).get("distilled")
        rows.append([recipe.name, recipe.dataset.value, "" if percent is None else f"{percent:.2f} %", recipe.about])
    show_table(["Recipe", "Data", "Paper", "What it is"], rows, words=4)


def show_robustness(rows: Sequence[dict[str, Any]], key: str) -> None:
    """Print the rows of one attack recipe, and what in them speaks against their numbers."""
    chosen = sorted((row for row in rows if row["recipe"] == key), key=lambda row: (row["attack"], row["eps_255"]))
    cells = [[r["attack"], str(r["eps_255"]), f"{r['accuracy']:.1%}", _interval(r), *_doubts(r)] for r in chosen]
    show_table(["Attack", "eps, 1/255", "Accuracy", "95 % interval", "Images", "No gradient", "Failed"], cells)
    for line in _caveats(chosen):
        console.print(line, soft_wrap=True)


def _doubts(row: dict[str, Any]) -> list[str]:
    return [str(row[name]) for name in ("images", "bad_gradient_images", "failed_images")]


def _caveats(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the sentences without which the numbers of an attack should not be passed on."""
    found, blind = [], max(rows, key=lambda row: row["bad_gradient_images"] / row["images"])
    if blind["bad_gradient_images"] > _BLIND * blind["images"]:
        found.append(
            f"{blind['bad_gradient_images']} of {blind['images']} images had a step without gradient: that they are still "
            "right says little about the model. `nodestill audit` says why."
        )
    if any(row["protocol"] == "chu2022" for row in rows):
        found.append(
            "The paper's attacks are weak: these are upper bounds. --protocol sound is the worst case over all attacks."
        )
    return found


def show_hunted(rows: Sequence[dict[str, Any]], key: str) -> None:
    """Print what each attack of the protocol sound added to one attack recipe; nothing of another protocol."""
    chosen = [row for row in rows if row["recipe"] == key]
    newest = [row for row in chosen if row["relatives"] == chosen[-1]["relatives"]]  # others are of relatives that changed
    if newest:
        from nodestill.report import hunted_table

        table = hunted_table(newest)
        show_table(table.headers, table.rows)
        console.print(table.notes[0], soft_wrap=True)


def show_audit(folder: Any, audited: Any, out: Path | None) -> None:
    """Write the report of an audit, and print its checks, one a row, and the gravest verdict."""
    from nodestill.experiments import read_audit
    from nodestill.report import write_audit_report

    page = write_audit_report(read_audit(folder), out)
    cells = [[one.verdict.value.upper(), one.name, one.meaning] for one in audited.results]
    show_table(["Verdict", "Check", "What it means"], cells, words=3)
    not_run = [row["name"] for row in read_audit(folder).checks if row["verdict"] is None]
    left_out = f" Not run, for the model does not offer what they need: {', '.join(not_run)}." if not_run else ""
    console.print(f"Checks at radius {audited.eps_255}/255.{left_out}", soft_wrap=True)
    console.print(f"Audit: {audited.verdict.value.upper()}\nReport: {page}", soft_wrap=True, markup=False)


def show_solvers(rows: Sequence[Any]) -> None:
    """Print the rows of `experiments.score_solvers`."""
    cells = []
    for row in rows:
        interval = f"{row.accuracy_low:.1%} to {row.accuracy_high:.1%}"
        change = "" if row.name == "own" else f"{100 * row.difference:+.2f}"
        cells.append([row.name, _solver(row), f"{row.accuracy:.2%}", interval, change, f"{row.evaluations:.1f}"])
    show_table(["Scored under", "Solver", "Accuracy", "95 % interval", "Change", "NFE"], cells, words=2)


def _solver(row: Any) -> str:
    if row.t1 == 0:
        return "none, t1 = 0"
    solver = row.solver
    if solver.steps is None:
        return f"{solver.method.value}, tolerance {solver.rtol:g}"
    return f"{solver.method.value}, {solver.steps} step{'s' if solver.steps > 1 else ''}"


def show_reproduction(grid: Path, part: str, out: Path | None = None) -> None:
    """Print the tables of a part of a grid, and write the report of all of it, beside its list if not elsewhere."""
    from nodestill.report import write_reproduction
    from nodestill.report.reproduced import sections
    from nodestill.report.spread import about_intervals
    from nodestill.reproduction.grid_records import read_grid

    records = read_grid(grid)
    for title, says, table in sections(records, part):
        console.print(f"\n{title}", style="bold", markup=False)
        kept = [place for place, header in enumerate(table.headers) if header != "Rows of"]  # too wide here
        rows = [[row[place] for place in kept] for row in table.rows]
        show_table([table.headers[place] for place in kept], rows, words=min(table.text_columns, len(kept)))
        for note in (*says, *table.notes):
            console.print(f"  {note}", style="dim", markup=False)
    console.print(f"\n{about_intervals(records)}", style="dim", markup=False)
    console.print(f"Report: {write_reproduction(records, out or grid)}", soft_wrap=True, markup=False)


def _interval(row: dict[str, Any]) -> str:
    return f"{row['wilson_low']:.1%} to {row['wilson_high']:.1%}"


def show_splits(found: Sequence[Any]) -> None:
    """Print what `data.verify` found."""
    rows = []
    for split in found:
        mean = " ".join(f"{value:.3f}" for value in split.pixel_mean)
        shape = "x".join(map(str, split.shape))
        rows.append([split.split.value, split.provenance, str(split.count), shape, mean])
    show_table(["Split", "Data", "Images", "Shape", "Mean"], rows, words=2)
    for split in found:
        console.print(f"{split.split.value} sha256 {split.sha256 or 'none: bundled with scikit-learn'}", soft_wrap=True)
    names = found[0].class_counts
    counts = [[name, *[str(split.class_counts.get(name, 0)) for split in found]] for name in names]
    show_table(["Class", *[split.split.value for split in found]], counts)
