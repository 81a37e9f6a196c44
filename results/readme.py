"""Write the first picture and the first table of README.md from the rows of the demo: python results/readme.py

From the rows in this folder alone; the same rows make the same files.
"""

import json
from pathlib import Path
from textwrap import fill

import matplotlib

from nodestill.experiments.records import Experiment, read_run
from nodestill.experiments.store import RunFolder
from nodestill.report.figures import robustness_figure
from nodestill.report.formats import duration
from nodestill.report.select import provenance
from nodestill.report.sentences import sentences
from nodestill.report.tables import Table, accuracy_table

RESULTS = Path(__file__).parent
README = RESULTS.parent / "README.md"
PICTURE = Path("docs/images/demo.svg")
START, END = "<!-- made by `python results/readme.py` -->", "<!-- /made -->"
_ELSEWHERE = ("Agrees with teacher", "Parameters", "MACs")  # the report has them too


def main(results: Path = RESULTS, readme: Path = README) -> Path:
    """Draw the picture, put what the rows say between the two marks of the page, and return the page."""
    experiment = collected(results / "demo")
    draw(experiment, readme.parent / PICTURE)
    before, rest = readme.read_text().split(START)
    readme.write_text(before + START + first_screen(experiment, results / "demo") + END + rest.split(END)[1])
    return readme


def collected(folder: Path) -> Experiment:
    """Read an experiment as it lies in this folder: its models' folders within its own."""
    listed = RunFolder(folder).read("experiment.json", "recipe", "members", "attack")
    runs = tuple(read_run(RunFolder(folder / Path(member).name), listed["attack"]) for member in listed["members"])
    return Experiment(folder.name, listed["recipe"], runs)


def draw(experiment: Experiment, path: Path) -> None:
    """Draw accuracy against the radius on white, so that it can be read on a dark page too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "nodestill", "svg.fonttype": "none"}):
        robustness_figure(experiment.runs).savefig(path, facecolor="white", metadata={"Date": None})


def first_screen(experiment: Experiment, folder: Path) -> str:
    """Return picture, table and what it says, as Markdown."""
    run = experiment.runs[0]
    threads = run.environment["threads"]
    cores = "one core" if threads == 1 else f"{threads} cores"
    images = f"of {run.evaluation['clean']['images']} test images {run.robustness[0]['images']} are attacked"
    return (
        f"\n![Accuracy of the demo's models against the radius of PGD and of MI-FGSM]({PICTURE})\n\n"
        f"{shorter(accuracy_table(experiment)).to_markdown()}\n"
        f"{fill(' '.join(sentences(experiment.runs)), 128)}\n\n"
        f"Data: {provenance(run)}; {images}; the whole command took {took(folder)} on {cores} ([rows](results/demo)).\n"
    )


def shorter(table: Table) -> Table:
    """Return the table without its notes and some of its columns."""
    kept = [i for i, header in enumerate(table.headers) if header not in _ELSEWHERE]
    rows = tuple(tuple(row[i] for i in kept) for row in table.rows)
    return Table(tuple(table.headers[i] for i in kept), rows, text_columns=table.text_columns)


def took(folder: Path) -> str:
    """Return how long the command took that made a folder's rows, from image to report."""
    runs = [json.loads(line) for line in (folder / "commands.jsonl").read_text().splitlines()]
    return duration(sum(run["seconds"] for run in runs))


if __name__ == "__main__":
    print(main())
