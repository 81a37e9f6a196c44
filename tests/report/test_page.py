"""The page: whole, self-contained, written at once, and without a number that no row holds."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from nodestill.errors import DataError
from nodestill.report import write_report
from nodestill.report.formats import count, duration, magnitude, percent
from nodestill.report.page import render_html, render_markdown
from nodestill.report.select import training_seconds
from report.made_records import bare, made_experiment

VOID = {"meta", "img", "br", "hr", "input", "link"}


class Page(HTMLParser):
    """Collects what a page shows, refers to and nests; complains where tags do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.references: list[str] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.references += [value for name, value in attrs if name in ("src", "href", "xlink:href", "srcset", "action", "data")]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "svg"} & set(self.open):
            self.words.append(data)


def bared(experiment):
    return replace(experiment, runs=tuple(bare(run) for run in experiment.runs))


EXPERIMENTS = {
    "whole": made_experiment(),
    "not attacked": bared(made_experiment()),
    "teacher only": bared(made_experiment("teacher")),
    "no teacher": made_experiment("undistilled"),
}


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=EXPERIMENTS.keys())
def test_page_parses_and_refers_to_nothing_outside(experiment):
    text = render_html(experiment)
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    assert all(ref.startswith(("#", "data:image/png;base64,")) for ref in page.references)
    assert not re.search(r"https?:|@import|url\((?!#)", text)
    assert len(page.ids) == len(set(page.ids))
    assert {ref[1:] for ref in page.references if ref[0] == "#"} | set(re.findall(r"url\(#([^)]*)\)", text)) <= set(page.ids)
    assert len(text) < 3_000_000


def leaves(value):
    """Return all scalars of nested records."""
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in (key, *leaves(item))]
    if isinstance(value, list):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


def numbers(text):
    return set(re.findall(r"\d+(?:,\d{3})*(?:\.\d+)?", text))


def printable(experiment):
    """Return every number that may be printed: a value of some row in one of the forms of print."""
    runs = experiment.runs
    texts = [run.path.name for run in runs] + [duration(training_seconds(run)) for run in runs]
    texts += [str(leaf) for leaf in leaves([experiment.name, experiment.recipe, *[[r.recipe, r.environment] for r in runs]])]
    for leaf in leaves([[run.evaluation, run.robustness] for run in runs]):
        texts.append(str(leaf))
        if isinstance(leaf, int | float):
            texts += [percent(leaf), magnitude(leaf), count(round(leaf)), duration(leaf), f"{leaf:.1f}", f"{leaf:g}"]
    return numbers(" ".join(texts))


CONSTANTS = {"95", "255", "2022", "10.0", "0"}  # the interval, the pixel range, the paper's year, guessing among ten, ε = 0


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=EXPERIMENTS.keys())
def test_every_number_is_in_some_row(experiment):
    for text in (" ".join(Page(render_html(experiment)).words), render_markdown(experiment)):
        found = numbers(text)
        assert len(found) > 8
        assert found <= printable(experiment) | CONSTANTS


def test_a_number_of_no_row_would_be_seen():
    assert not {"87.35", "13.37", "24.58"} & (printable(made_experiment()) | CONSTANTS)


def test_page_says_data_story_and_cautions():
    text = " ".join(" ".join(Page(render_html(made_experiment(), {"distilled": 88.03})).words).split()).replace("\u00a0", " ")
    for part in (
        "NODE(1), taught by ResNet-20",
        "Data: CIFAR-10, JPEG mirror",
        "87.3 % clean",
        "88.03 %",
        "Not audited.",
        "stays above chance",
        "student-cifar10-distilled-97a3d909",
        "6101d99f3c",
        "cat : dog → automobile",
        "horse : horse → no answer",
        "radius 8/255",
    ):
        assert part in text, part


def test_missing_parts_are_said_or_left_out():
    text = render_html(EXPERIMENTS["teacher only"])
    assert "Nothing was attacked yet" in text
    assert "What the attack does" not in text
    assert "Work per image" not in text
    assert "Not audited" not in text


def test_names_are_escaped():
    experiment = made_experiment("teacher")
    run = replace(experiment.runs[0], title="<u>&", recipe={**experiment.runs[0].recipe, "provenance": "<script>"})
    text = render_html(replace(experiment, runs=(run,)))
    assert "<script>" not in text
    assert "<u>" not in text
    assert "&lt;u&gt;&amp;" in text


def test_report_is_written_beside_its_markdown(tmp_path):
    written = write_report(made_experiment(), tmp_path / "new" / "report.html")
    assert written == tmp_path / "new" / "report.html"
    assert sorted(path.name for path in written.parent.iterdir()) == ["report.html", "report.md"]
    assert written.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert write_report(made_experiment("teacher"), tmp_path / "folder") == tmp_path / "folder" / "report.html"


def test_same_records_same_bytes():
    assert render_html(made_experiment()) == render_html(made_experiment())


def test_a_write_that_fails_leaves_the_old_report(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nodestill.whole_files.os.fsync", full)
    with pytest.raises(DataError, match="No space left on device"):
        write_report(made_experiment("teacher"), path)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_a_file_where_a_folder_should_be_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="Cannot write"):
        write_report(made_experiment("teacher"), tmp_path / "file" / "report.html")
