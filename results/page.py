"""Write what a grid says, with its pictures, among the project's pages: python results/page.py reproduce-cifar10-cpu

From the rows in this folder alone; the same rows make the same files.
"""

import sys
from pathlib import Path

import matplotlib

from nodestill.report.grid_page import Drawing, drawings, grid_markdown
from nodestill.report.reproduced import sections
from nodestill.reproduction.grid_records import GridRecords, read_grid

RESULTS = Path(__file__).parent
DOCS = RESULTS.parent / "docs"


def main(name: str, results: Path = RESULTS, docs: Path = DOCS) -> Path:
    """Write a grid's page and pictures, and return the page."""
    grid, page = read_grid(results / name), docs / f"{name}.md"
    page.write_text(grid_markdown(grid, pictures(grid, name, docs)) + made_by(grid, name))
    return page


def pictures(grid: GridRecords, name: str, docs: Path) -> dict[str, str]:
    """Draw the figures that have something to show; return what stands for them in Markdown, by title of the section."""
    found = {section.title: drawings(grid, section) for section in sections(grid, "all")}
    return {title: "\n".join(picture(one, name, docs) for one in some) for title, some in found.items() if some}


def picture(drawing: Drawing, name: str, docs: Path) -> str:
    """Write a figure on white, so that it can be read on a dark page too, and return its Markdown."""
    path = docs / "images" / f"{name}-{drawing.name}.svg"
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "nodestill"}):
        drawing.figure.savefig(path, facecolor="white", metadata={"Date": None})
    return f"![{drawing.words}](images/{path.name})"


def made_by(grid: GridRecords, name: str) -> str:
    """Say where the page came from."""
    return (
        f"\nMade by `python results/page.py {name}` from the rows in [`results/{name}`](../results/{name}), which were made by "
        f"`nodestill reproduce all --dataset {grid.dataset} --scale {grid.scale} --data DIR`.\n"
    )


if __name__ == "__main__":
    print(main(sys.argv[1]))
