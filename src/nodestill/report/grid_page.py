"""The report of a grid: every table with its sentences, the figures, every value that is not the paper's; HTML and Markdown."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from nodestill.report.behind import about_environments, environment_table, shared_environment
from nodestill.report.canvas import svg
from nodestill.report.claims import evidence_table
from nodestill.report.grid_figures import attack_figure, heat_map, horizon_figure
from nodestill.report.page import replace_file, template
from nodestill.report.reproduced import Section, sections
from nodestill.report.spread import about_intervals
from nodestill.report.tables import Table
from nodestill.reproduction.grid_records import GridRecords

if TYPE_CHECKING:
    import matplotlib.figure

_SETS = {"cifar10": "CIFAR-10", "svhn": "SVHN"}
_DRAWN: Mapping[str, Sequence[tuple[str, Callable]]] = {
    "Table 2": [("Accuracy by teacher and temperature, ours and the paper's", heat_map)],
    "Figure 1": [("Accuracy against radius under PGD and MI-FGSM", attack_figure)],
    "Horizons": [("Seconds of the fastest epoch and evaluations against the horizon", horizon_figure)],
}
NO_PICTURES: Mapping[str, str] = {}


class Drawing(NamedTuple):
    """A figure of a grid."""

    name: str  # fit for a file or an identifier
    words: str  # read aloud in its place
    figure: "matplotlib.figure.Figure"


def write_reproduction(grid: GridRecords, out: Path) -> Path:
    """Write the report of a grid as one HTML file, and as Markdown beside it; return the HTML file.

    Raises:
        DataError: If the files cannot be written.
    """
    path = out if out.suffix == ".html" else out / "report.html"
    replace_file(path.with_suffix(".md"), grid_markdown(grid))
    replace_file(path, grid_html(grid))
    return path


def grid_markdown(grid: GridRecords, pictures: Mapping[str, str] = NO_PICTURES) -> str:
    """Return the report as Markdown, with a line of pictures above the table of a section where `pictures` has its title."""
    about = f"Scale {grid.scale}: {grid.about}. Images: {grid.data}. {how_far(grid)}"
    parts = [f"# {title(grid)}", about, about_intervals(grid)]
    for section in sections(grid, "all"):
        parts += [f"## {section.title}", " ".join(section.says), pictures.get(section.title, ""), section.table.to_markdown()]
    parts += ["## What is not the paper's", changes_table(grid).to_markdown()]
    runs = [cell.run for cell in grid.cells if cell.run is not None]
    parts += ["## Behind the numbers", _folded("Run folders of each claim", evidence_table(grid))]
    parts += [folders_table(grid).to_markdown(), *about_environments(runs)]
    return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"


def _folded(summary: str, table: Table) -> str:
    """Return a long table as Markdown that is shown when it is asked for; without rows nothing."""
    lines = f"<details><summary>{summary}</summary>\n\n{table.to_markdown()}\n</details>"
    return lines if table.rows else ""


def grid_html(grid: GridRecords) -> str:
    """Return the report as an HTML page without scripts and without references to anything outside itself."""
    runs = [cell.run for cell in grid.cells if cell.run is not None]
    found = [(section, [_inline(drawing) for drawing in drawings(grid, section)]) for section in sections(grid, "all")]
    content = {
        "title": title(grid),
        "scale": grid.scale,
        "about": grid.about,
        "data": grid.data,
        "how_far": how_far(grid),
        "intervals": about_intervals(grid),
        "sections": found,
        "changes": changes_table(grid),
        "evidence": evidence_table(grid),
        "folders": folders_table(grid),
        "environment": environment_table(runs),
        "shared_environment": shared_environment(runs),
    }
    return template("grid.html.j2").render(content)


def title(grid: GridRecords) -> str:
    """Return what the report is about; where the images are not the paper's, whose place they take."""
    images = _SETS.get(grid.dataset, grid.dataset)
    others = next((here for field, here, _ in grid.changes if field == "dataset"), None)
    on = images if others is None else f"{others} in place of {images}"
    return f"Chu et al. 2022 on {on}, reproduced at scale {grid.scale}"


def how_far(grid: GridRecords) -> str:
    """Return how many models the page has seen, how many never will be there, and how many are left."""
    found, about = grid.counted(), "about " if any(cell.folder is None for cell in grid.cells) else ""
    said = [f"Of {about}{sum(found)} models: {found.finished} finished, {found.diverged} diverged, {found.left} left."]
    if found.diverged:
        said.append("What diverged is a rate that was tried, or a model for which every rate did; it is not tried again.")
    if found.left:
        said.append("**Not finished: what is left is a dash.**")
    return " ".join(said)


def changes_table(grid: GridRecords) -> Table:
    """Return every value that is not the paper's, beside the paper's."""
    return Table(("Field", "Here", "Paper"), grid.changes, text_columns=3)


def folders_table(grid: GridRecords) -> Table:
    """Return where the rows of each cell lie, and why a cell has none."""
    rows = []
    for cell in grid.cells:
        state = "finished" if cell.run is not None else cell.failed or "not there yet"
        rows.append((cell.name, str(cell.seed), cell.folder or "–", state))
    return Table(("Cell", "Seed", "Run folder", "State"), tuple(rows), text_columns=4)


def drawings(grid: GridRecords, section: Section) -> list[Drawing]:
    """Return the figures that belong to a table."""
    title = section.title.partition(":")[0]
    return [Drawing(title.lower().replace(" ", "-"), words, draw(grid)) for words, draw in _DRAWN.get(title, [])]


def _inline(drawing: Drawing) -> str:
    return svg(drawing.figure, drawing.name, drawing.words)
