"""The tables, sentences, figures and the page of a grid, from rows made up so that every number is known."""

import html.parser
import re
from dataclasses import replace

import pytest

import fake_runs
from nodestill.experiments.store import RunFolder
from nodestill.report import write_reproduction
from nodestill.report.claims import claims_table, evidence_table
from nodestill.report.controlled import factors, structure
from nodestill.report.grid_figures import attack_figure, heat_map, horizon_figure
from nodestill.report.grid_page import grid_html, grid_markdown, how_far, title
from nodestill.report.reproduced import figure1_table, sections, table1, table2
from nodestill.report.said import say
from nodestill.report.solved import horizons_table, solvers_table
from nodestill.report.spread import about_intervals, spread
from nodestill.report.under_attack import about_spent_radii
from nodestill.reproduction import asked_reproduction
from nodestill.reproduction.grid_records import read_grid
from nodestill.reproduction.reproduce import write_listing
from nodestill.reproduction.schedule import standing
from report.made_grids import made_up


def test_table_1_has_ours_the_papers_and_the_difference(grid):
    rows = {row[0]: dict(zip(table1(grid).headers, row)) for row in table1(grid).rows}
    assert list(rows) == ["NODE(1), labels", "NODE(100), labels", *[f"ResNet-{depth}" for depth in (20, 32, 44, 56, 110)]]
    found = spread(grid, "node1")
    assert rows["NODE(1), labels"]["Here"] == found.percent()
    assert rows["NODE(1), labels"]["Paper"] == "63.45"
    assert rows["NODE(1), labels"]["Here − paper"] == "–"  # digits are not the paper's images
    of_cifar = replace(grid, changes=tuple(change for change in grid.changes if change[0] != "dataset"))
    assert table1(of_cifar).rows[0][5].startswith(f"{100 * found.mean - 63.45:+.1f} (")
    assert (rows["ResNet-110"]["Paper"], rows["ResNet-110"]["Here − paper"]) == ("–", "–")


def test_table_2_has_every_teacher_and_temperature(grid):
    table = table2(grid)
    assert len(table.rows) == 5
    assert [header for header in table.headers if header.startswith("T =")] == ["T = 3", "T = 10", "T = 20"]
    resnet44 = table.rows[2]
    assert resnet44[table.headers.index("T = 10") + 1] == "88.03"
    assert all(len(row) == len(table.headers) for row in table.rows)


def test_the_best_cell_is_the_papers_and_is_called_so(grid, tmp_path):
    """Whichever cell is best here."""
    gains = [row[3] for row in claims_table(grid).rows if row[1].startswith("Distillation improves the accuracy")]
    assert [gain.startswith("the paper's best cell ") for gain in gains] == [True, True]
    for dataset, paper, here in (("cifar10", "ResNet-44, T = 10", "kd-T20-resnet56"), ("svhn", "ResNet-110, T = 3", "kd-T3-r")):
        found = made_up(tmp_path / dataset, {here: 0.9}, 1, dataset, "table2")
        assert table2(found).notes[0].startswith(f"The paper's best cell is NODE(1), {paper}: ")


def test_scores_under_other_solvers_say_of_how_many_images_and_seeds(grid):
    table = solvers_table(grid)
    (images,) = {row["images"] for cell in grid.cells for row in cell.solvers}
    assert table.notes[0].startswith(f"Scored are the first {images:,} test images")
    seeds = {row[0]: row[table.headers.index("Seeds")] for row in table.rows}
    scored = ("node1", "node100", "node500", grid.best, "kd-node100")
    assert seeds == {grid.first(name).about: str(len(grid.named(name))) for name in scored}


def test_scores_on_all_the_test_images_there_are_are_shown_where_more_were_asked_for(tmp_path):
    found = made_up(tmp_path, {}, 1, part="table3")
    (cell,) = found.named("node500").values()
    assert cell.solvers
    listing, folder = RunFolder(found.path).read("grid.json"), RunFolder(cell.run.path)
    cells = [{**one, "scored_images": 2 * fake_runs.IMAGES if one["scored_images"] else 0} for one in listing["cells"]]
    RunFolder(found.path).write("grid.json", {**listing, "cells": cells})
    assert read_grid(found.path).named("node500")[0].solvers == ()  # of fewer than all there are
    folder.write_rows("solvers.jsonl", [{**row, "images": fake_runs.IMAGES} for row in cell.solvers])
    assert len(read_grid(found.path).named("node500")[0].solvers) == len(cell.solvers)


def test_the_figure_compares_horizons_over_all_radii(tmp_path):
    """What is lowered is lowered by a number without a minus; and radii are quoted at which something is left."""
    for one, other, does in ((0.9, 0.3, "raises"), (0.3, 0.9, "lowers")):
        found = made_up(tmp_path / does, {"kd-node100": one, "kd-adam": other}, 1, part="all")
        first, second = say(found, "figure1")
        same = "Over all radii and attacks a horizon of 100 in place of 1, both distilled by Adam,"
        assert re.fullmatch(rf"{same} {does} the mean accuracy by [0-9.]+ \([0-9.]+ to [0-9.]+\) points\.", second)
        radii = {row["eps_255"] for row in found.named("node1")[0].run.robustness} - {0}
        assert first.startswith(f"Under PGD at {min(radii, key=lambda eps: abs(eps - 2))}/255 and 8/255, ")


def test_a_note_says_on_how_many_images_each_model_was_attacked(grid):
    """The made-up models of long horizons are attacked on half of the images; then all on a hundred."""
    notes = {section.title.partition(":")[0]: section.table.notes for section in sections(grid, "all")}
    long = "“NODE(100), labels”, “NODE(100), ResNet-44, T = 10” and “NODE(500), labels”"
    assert notes["Figure 1"][0].startswith(f"Under attack: the first 1,000 test images; of {long} the first 500. ")
    assert notes["Table 3"][0].startswith("Under attack: the first 500 test images. ")

    def on_a_hundred(cell):
        rows = [{**row, "images": 100, "correct": 0} for row in cell.run.robustness]
        return replace(cell, run=replace(cell.run, robustness=rows))

    same = figure1_table(replace(grid, cells=tuple(on_a_hundred(cell) for cell in grid.cells)))
    assert same.notes[0].startswith("Under attack: the first 100 test images. ")


def test_one_cell_has_no_range_to_speak_of(grid):
    first = grid.names("table2")[0]
    alone = replace(grid, cells=tuple(replace(c, run=c.run if c.name == first else None) for c in grid.cells))
    assert say(alone, "table2") == ()
    assert "cells lie between" in say(grid, "table2")[0]


def test_the_parts_of_the_gain_add_up_to_it(grid):
    for rate in ("scale", "paper", "tuned"):
        found = factors(grid, rate)
        assert found["optimiser"].mean + found["distillation"].mean == pytest.approx(found["gain"].mean)
    best, stem = (spread(grid, name).mean for name in (grid.best, "stem-only"))
    assert structure(grid)["ODE, above the stem alone"].mean == pytest.approx(best - stem)
    assert structure(grid)["stem, above guessing"].mean == pytest.approx(stem - 0.1)


def test_a_pure_effect_of_the_optimiser_is_told_from_one_of_distillation(tmp_path):
    shares = {"kd-sgd": 0.8, "labels-sgd": 0.8, "kd-adam": 0.6, "labels-adam": 0.6, "kd-T": 0.8, "node1": 0.6}
    found = factors(made_up(tmp_path, shares, 2, part="controls"), "paper")
    assert found["optimiser"].mean == pytest.approx(0.2, abs=0.003)
    assert found["distillation"].mean == pytest.approx(0.0, abs=0.003)
    assert found["optimiser"].sign == 1


def test_every_table_says_two_sentences(grid):
    for name in ("table1", "table2", "table3", "figure1", "controls", "factors", "solvers", "horizons", "claims"):
        said = say(grid, name)
        assert len(said) == (3 if name == "claims" else 2), name
        assert all(sentence.endswith(".") for sentence in said)


def test_claims_say_what_kind_of_models_they_are_judged_by(grid):
    means = {name: 100 * spread(grid, name).mean for name in grid.names("claims")}
    ranges = []
    for kind, of_residual in (("students", False), ("residual networks", True)):
        some = [mean for name, mean in means.items() if name.startswith("resnet") == of_residual]
        ranges.append(f"{kind} of {min(some):.1f} to {max(some):.1f} %")
    ours = f"The verdicts are about {' and '.join(ranges)} clean accuracy"
    assert say(grid, "claims")[0] == (
        f"{ours} on digits of scikit-learn: they show that judging works and say nothing of the paper, whose images are others."
    )
    of_cifar = replace(grid, changes=tuple(change for change in grid.changes if change[0] != "dataset"))
    paper = "; the paper's models have 62.38 to 90.32 %. Contradicted means by models like these, not at the paper's scale."
    assert say(of_cifar, "claims")[0] == ours + paper
    assert say(replace(grid, changes=()), "claims")[0].endswith("62.38 to 90.32 %.")


def test_every_table_stands_in_all(grid):
    titles = [section.title for section in sections(grid, "all")]
    assert len(titles) == 9
    assert [section.title for section in sections(grid, "controls")] == titles[4:8]
    for section in sections(grid, "all"):
        assert all(len(row) == len(section.table.headers) for row in section.table.rows), section.title


def test_nothing_is_said_where_nothing_is_measured(tmp_path):
    asked, known = asked_reproduction("all", "svhn", "smoke", 1), fake_runs.known(tmp_path)
    empty = read_grid(write_listing(asked, known, {}).path)
    for name in ("table1", "table2", "table3", "figure1", "controls", "factors", "solvers", "horizons"):
        assert say(empty, name) == ()
    assert {row[2] for row in claims_table(empty).rows} == {"not measured"}
    page = write_reproduction(empty, tmp_path / "report.html").read_text()
    assert "not measured" in page


def test_a_failed_cell_says_so(tmp_path):
    asked, known = asked_reproduction("table3", "cifar10", "smoke", 1), fake_runs.known(tmp_path)
    name = known.member(asked.cells()[0]).folder
    listed = read_grid(write_listing(asked, known, {name: "the loss is no number"}).path)
    assert "| node500 | 0 | " + name + " | the loss is no number |" in grid_markdown(listed)


class Checker(html.parser.HTMLParser):
    """Notes what a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = [value or "" for name, value in attrs if name in ("src", "href")]
        self.loaded += [address for address in named if not address.startswith(("#", "data:"))]


def test_the_page_needs_nothing_but_itself(grid, tmp_path):
    path = write_reproduction(grid, tmp_path)
    checker, page = Checker(), path.read_text()
    checker.feed(page)
    assert checker.loaded == []
    assert "<script" not in page
    assert len(re.findall("<svg", page)) == 3
    markdown = path.with_suffix(".md").read_text()
    assert "88.03" in markdown
    for field, here, there in grid.changes:
        assert f"| {field} | {here} | {there} |" in markdown
    for cell in grid.cells:
        assert f"| {cell.name} | {cell.seed} | {cell.folder} | finished |" in markdown


def test_the_title_names_the_images_that_stand_for_the_papers(grid):
    assert title(grid) == "Chu et al. 2022 on digits in place of CIFAR-10, reproduced at scale smoke"
    of_cifar = replace(grid, changes=tuple(change for change in grid.changes if change[0] != "dataset"))
    assert title(of_cifar) == "Chu et al. 2022 on CIFAR-10, reproduced at scale smoke"
    assert f"<title>{title(grid)}</title>" in grid_html(grid)
    assert grid_markdown(grid).startswith(f"# {title(grid)}\n")


def test_what_intervals_are_is_said_once(grid):
    said = about_intervals(grid)
    assert grid_markdown(grid).count(said) == 1
    assert grid_html(grid).replace("\u00a0", " ").count(said) == 1


def test_the_folders_of_the_claims_are_folded_away(grid):
    table = evidence_table(grid)
    assert f"<details><summary>Run folders of each claim</summary>\n\n{table.to_markdown()}" in grid_markdown(grid)
    assert f'<div class="scroll behind">{table.to_html()}</div>\n</details>' in grid_html(grid)


def test_the_heat_map_shows_ours_and_the_papers(grid):
    ours, theirs = heat_map(grid).axes
    texts = [{text.get_text() for text in panel.texts} for panel in (ours, theirs)]
    assert f"{100 * spread(grid, grid.best).mean:.1f}" in texts[0]
    assert {"88.0", "–"} <= texts[1]  # ResNet-110 at T = 3 is unreadable
    assert len(ours.texts) == len(theirs.texts) == 15


def test_figures_draw_what_is_there(grid):
    assert len(attack_figure(grid).axes) == 2
    assert len(attack_figure(grid).axes[0].get_lines()) == 6
    assert [len(panel.get_lines()) for panel in horizon_figure(grid).axes] == [2, 2]


def test_the_time_of_an_epoch_is_that_of_the_fastest_beside_the_slowest(grid):
    def timed(cell):
        seconds = iter([3.0, 9.0, *[5.0] * len(cell.run.training)])
        return replace(cell, run=replace(cell.run, training=[{**row, "seconds": next(seconds)} for row in cell.run.training]))

    table = horizons_table(replace(grid, cells=tuple(timed(cell) if cell.name == "node1" else cell for cell in grid.cells)))
    assert table.rows[0][-1] == "3.0 s to 9.0 s"
    assert table.rows[1][-1] == "2.0 s"
    way = grid.named("node1")[0].run.recipe["model"]["solver"]["gradient"]
    assert f"by `{way}` in “NODE(1), labels”" in table.notes[1]


def test_radii_at_which_nothing_is_left_are_named(grid):
    def weak(cell):
        if cell.run is None:
            return cell
        rows = [{**row, "accuracy": 0.5 if row["eps_255"] < 8 else 0.002} for row in cell.run.robustness]
        return replace(cell, run=replace(cell.run, robustness=rows))

    radii = {row["eps_255"] for cell in grid.cells for row in cell.run.robustness}
    (note,) = about_spent_radii(replace(grid, cells=tuple(weak(cell) for cell in grid.cells)))
    assert [int(eps) for eps in re.findall(r"(\d+)/255", note)] == sorted(eps for eps in radii if eps >= 8)
    assert note in sections(replace(grid, cells=tuple(weak(cell) for cell in grid.cells)), "claims")[0].table.notes


def test_every_model_is_finished_diverged_or_left(tmp_path):
    """A rate that diverged is neither finished nor left; cells of one folder are one model."""
    asked, known = asked_reproduction("table1", "cifar10", "smoke", 1), fake_runs.known(tmp_path)
    first, second, *others = standing(asked.cells(), known, asked.scale).left.values()
    fake_runs.finish(first, known)
    found = read_grid(write_listing(asked, known, {}).path)
    models = sum(found.counted())
    assert found.counted() == (1, 0, models - 1)
    assert how_far(found).endswith(f" 1 finished, 0 diverged, {models - 1} left. **Not finished: what is left is a dash.**")
    known.store.folder(second.name).write("diverged.json", {"why": "Training diverged."})
    found = read_grid(write_listing(asked, known, {}).path)
    assert found.counted() == (1, 1, models - 2)
    assert f"1 finished, 1 diverged, {models - 2} left. What diverged is a rate" in how_far(found)
    for work in others:
        fake_runs.finish(work, known)
    whole = replace(found, cells=tuple(cell for cell in read_grid(found.path).cells if cell.run is not None or cell.diverged))
    twice = replace(whole, cells=(*whole.cells, replace(whole.cells[0], name="the same model")))
    assert whole.counted() == twice.counted() == (1 + len(others), 1, 0)
    assert "Not finished" not in how_far(whole)
    assert how_far(whole).startswith(f"Of {2 + len(others)} models")


def test_a_failure_that_is_tried_again_has_not_diverged(tmp_path):
    asked, known = asked_reproduction("table3", "cifar10", "smoke", 1), fake_runs.known(tmp_path)
    name = known.member(asked.cells()[0]).folder
    found = read_grid(write_listing(asked, known, {name: "its process was stopped"}).path)
    assert found.counted().diverged == 0
