"""The report of an experiment: one HTML file that needs nothing else, and its text as Markdown beside it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nodestill.errors import DataError
from nodestill.experiments.records import Experiment, RunRecords
from nodestill.report.behind import about_environments, environment_table, runs_table, shared_environment, sweep_table
from nodestill.report.canvas import svg
from nodestill.report.captions import cautions, protocol_caption
from nodestill.report.figures import accuracy_figure, evaluations_figure, robustness_figure, training_figure
from nodestill.report.formats import attack_name, joined, radius
from nodestill.report.select import attacks_of, label, main_run, provenance
from nodestill.report.sentences import big_numbers, sentences, title
from nodestill.report.tables import NOTHING_PUBLISHED, accuracy_table
from nodestill.whole_files import write_whole


def write_report(experiment: Experiment, out: Path, published: Mapping[str, float] = NOTHING_PUBLISHED) -> Path:
    """Write the report of an experiment as one HTML file, and as Markdown beside it.

    A reader never sees half a file: each is written under another name and renamed.

    Args:
        experiment: The models, teacher first; those that are not finished are simply not there.
        out: The HTML file (`….html`), or the folder to write `report.html` into.
        published: The paper's clean accuracy in percent by role, where the recipe is one of its cells.

    Returns:
        Where the HTML file is.

    Raises:
        DataError: If the files cannot be written.
    """
    path = out if out.suffix == ".html" else out / "report.html"
    replace_file(path.with_suffix(".md"), render_markdown(experiment, published))
    replace_file(path, render_html(experiment, published))
    return path


def render_html(experiment: Experiment, published: Mapping[str, float] = NOTHING_PUBLISHED) -> str:
    """Return the report as an HTML page without scripts and without references to anything outside itself."""
    return template("page.html.j2").render(_content(experiment, published))


def template(name: str) -> Any:
    """Return a template of this folder; a value that it asks for and does not get is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["tied"] = lambda text: text.replace(" %", "\u00a0%")
    return environment.get_template(name)


def _content(experiment: Experiment, published: Mapping[str, float]) -> dict[str, Any]:
    runs, main = experiment.runs, main_run(experiment.runs)
    return {
        "name": experiment.name,
        "title": title(runs),
        "data": _data(runs),
        "legend": [(run.role, label(run)) for run in runs],
        "numbers": big_numbers(runs),
        "sentences": sentences(runs),
        "table": accuracy_table(experiment, published),
        "figures": _figures(runs),
        "protocol": protocol_caption(runs) if attacks_of(runs) else "",
        "cautions": cautions(runs),
        "sweeps": [(label(run), sweep_table(run)) for run in runs if run.robustness],
        "gallery_of": label(main),
        "gallery": [_example(main, item) for item in main.gallery],
        "runs": runs_table(runs),
        "environment": environment_table(runs),
        "shared_environment": shared_environment(runs),
        "recipes": [("Experiment", _pretty(experiment.recipe)), *[(label(run), _pretty(run.recipe)) for run in runs]],
    }


def _figures(runs: Sequence[RunRecords]) -> dict[str, list[str]]:
    """Return the drawings of each section, one panel each, so that a narrow page can stack them."""
    attacks = attacks_of(runs)
    robustness = [(robustness_figure(runs, [attack], legend=False), attack) for attack in attacks]
    training = [(training_figure(runs, [part], legend=False), part) for part in ("accuracy", "loss")]
    solving = any((run.evaluation.get("evaluations") or {"max": 0})["max"] > 0 for run in runs)
    return {
        "accuracy": [svg(accuracy_figure(runs), "accuracy", "Accuracy of each model with its interval, as in the table")],
        "robustness": [svg(figure, name, f"Accuracy against radius under {attack_name(name)}") for figure, name in robustness],
        "training": [
            svg(figure, f"train-{part}", f"{part} by epoch") for figure, part in training if any(r.training for r in runs)
        ],
        "evaluations": [svg(evaluations_figure(runs), "nfe", "Histogram of evaluations per image")] if solving else [],
    }


def _data(runs: Sequence[RunRecords]) -> str:
    return joined(sorted({provenance(run) for run in runs}))


def _example(run: RunRecords, item: Mapping[str, Any]) -> dict[str, Any]:
    """Return an adversarial image with its classes by name; a class of -1 means that the model gave no answer."""
    names = [*run.recipe["class_names"], "no answer"]
    return {
        "radius": radius(item["eps_255"]),
        "label": names[item["label"]],
        "before": names[item["predicted_clean"]],
        "after": names[item["predicted"]],
        "fooled": item["predicted"] != item["label"],
        "clean": item["clean"],
        "adversarial": item["adversarial"],
    }


def _pretty(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def render_markdown(experiment: Experiment, published: Mapping[str, float] = NOTHING_PUBLISHED) -> str:
    """Return the report as Markdown: sentences, tables and captions, without figures."""
    runs = experiment.runs
    parts = [f"# {title(runs)}", f"Recipe `{experiment.name}`. Data: {_data(runs)}.", " ".join(sentences(runs))]
    parts += ["## Accuracy and cost", accuracy_table(experiment, published).to_markdown()]
    if attacks_of(runs):
        parts += ["## Robustness", protocol_caption(runs), "\n".join(f"- {line}" for line in cautions(runs))]
    parts += ["## Behind the numbers", runs_table(runs).to_markdown(), *about_environments(runs)]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def replace_file(path: Path, text: str) -> None:
    """Write a file whole, so that a reader never sees half of it; raises `DataError`."""
    try:
        write_whole(path, text.encode())
    except OSError as error:
        raise DataError(
            f"Cannot write {path}: {error.strerror or error}. Choose another place for the report, or make room there."
        ) from None
