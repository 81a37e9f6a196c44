"""The tables of a grid, from rows made up so that every mean, difference and verdict is known."""

import html.parser
import re
from pathlib import Path

import pytest

import fake_runs
from nodestill.experiments import asked_reproduction
from nodestill.experiments.records import GridRecords, read_grid
from nodestill.experiments.reproduce import write_listing
from nodestill.experiments.schedule import standing
from nodestill.experiments.work import with_needs
from nodestill.intervals import student_interval, wilson_interval
from nodestill.report import write_reproduction
from nodestill.report.claims import Claim, Verdict, claims, claims_table
from nodestill.report.controlled import factors, structure
from nodestill.report.grid_figures import attack_figure, heat_map, horizon_figure
from nodestill.report.grid_page import grid_markdown
from nodestill.report.reproduced import sections, table1, table2
from nodestill.report.said import say
from nodestill.report.spread import Spread, difference, hits_of, spread

Shares = dict[str, float]  # accuracy of the cells whose names begin so; the longest beginning counts


def share_of(name: str, seed: int, shares: Shares) -> float:
    """The accuracy of a cell: that of its name, and a little more for each seed, another little for each name."""
    fitting = [start for start in shares if name.startswith(start)]
    return (shares[max(fitting, key=len)] if fitting else 0.5) + 0.004 * seed * (1 + len(name) % 2)


def made_up(root: Path, shares: Shares, seeds: int, dataset: str = "cifar10", part: str = "all") -> GridRecords:
    """A grid whose cells have the accuracies that are asked for, written and read back."""
    asked, known = asked_reproduction(part, dataset, "smoke", seeds), fake_runs.known(root)
    for cell in with_needs(asked.cells()):
        for work in standing([cell], known, asked.scale).left.values():
            fake_runs.finish(work, known, share_of(cell.name, cell.seed, shares))
    return read_grid(write_listing(asked, known, {}).path)


@pytest.fixture(scope="module")
def grid(tmp_path_factory) -> GridRecords:
    """Two seeds of everything."""
    return made_up(tmp_path_factory.mktemp("store"), {"resnet": 0.9, "kd": 0.8, "node": 0.6, "labels": 0.7}, 2)


def test_a_mean_has_the_spread_of_its_seeds(grid):
    hits = {0: (520, 1000), 1: (560, 1000), 2: (600, 1000)}
    found = spread(hits)
    assert found.mean == pytest.approx(0.56)
    assert found.deviation == pytest.approx(0.04)
    assert (found.low, found.high) == pytest.approx(student_interval([0.52, 0.56, 0.6]))
    assert found.percent() == "56.0 ± 4.0"


def test_seeds_that_agree_by_chance_do_not_make_a_number_exact():
    assert (spread({0: (5, 10), 1: (5, 10)}).low, spread({0: (5, 10)}).low) == (wilson_interval(5, 10)[0],) * 2
    same = difference({0: (5, 10), 1: (6, 10)}, {0: (4, 10), 1: (5, 10)})
    assert same.low < 0 < same.high
    assert spread({}) is None
    assert difference({0: (5, 10)}, {1: (5, 10)}) is None


def test_differences_are_paired_by_seed():
    one, other = {0: (500, 1000), 1: (700, 1000), 2: (640, 1000)}, {0: (480, 1000), 1: (682, 1000), 2: (618, 1000), 3: (1, 2)}
    found = difference(one, other)
    assert found.seeds == 3
    assert (found.low, found.high) == pytest.approx(student_interval([0.02, 0.018, 0.022]))
    assert found.sign == 1
    wider = difference(one, other, confidence=0.999)
    assert wider.low < found.low < found.high < wider.high
    assert Spread(0.014, -0.001, 0.03, None, 1).points() == "+1.4 (-0.1 to +3.0)"


def test_table_1_has_ours_the_papers_and_the_difference(grid):
    rows = {row[0]: dict(zip(table1(grid).headers, row)) for row in table1(grid).rows}
    assert list(rows) == ["NODE(1), labels", "NODE(100), labels", *[f"ResNet-{depth}" for depth in (20, 32, 44, 56, 110)]]
    found = spread(hits_of(grid, "node1"))
    assert rows["NODE(1), labels"]["Here"] == found.percent()
    assert rows["NODE(1), labels"]["Paper"] == "63.45"
    assert rows["NODE(1), labels"]["Here − paper"].startswith(f"{100 * found.mean - 63.45:+.1f} (")
    assert (rows["ResNet-110"]["Paper"], rows["ResNet-110"]["Here − paper"]) == ("–", "–")


def test_table_2_has_every_teacher_and_temperature(grid):
    table = table2(grid)
    assert len(table.rows) == 5
    assert [header for header in table.headers if header.startswith("T =")] == ["T = 3", "T = 10", "T = 20"]
    resnet44 = table.rows[2]
    assert resnet44[table.headers.index("T = 10") + 1] == "88.03"
    assert all(len(row) == len(table.headers) for row in table.rows)


def test_the_parts_of_the_gain_add_up_to_it(grid):
    for rate in ("scale", "paper", "tuned"):
        found = factors(grid, rate)
        assert found["optimiser"].mean + found["distillation"].mean == pytest.approx(found["gain"].mean)
    best, stem = (spread(hits_of(grid, name)).mean for name in (grid.best, "stem-only"))
    assert structure(grid)["ODE, above the stem alone"].mean == pytest.approx(best - stem)
    assert structure(grid)["stem, above guessing"].mean == pytest.approx(stem - 0.1)


def test_a_pure_effect_of_the_optimiser_is_told_from_one_of_distillation(tmp_path):
    shares = {"kd-sgd": 0.8, "labels-sgd": 0.8, "kd-adam": 0.6, "labels-adam": 0.6, "kd-T": 0.8, "node1": 0.6}
    found = factors(made_up(tmp_path, shares, 2, part="controls"), "paper")
    assert found["optimiser"].mean == pytest.approx(0.2, abs=0.003)
    assert found["distillation"].mean == pytest.approx(0.0, abs=0.003)
    assert found["optimiser"].sign == 1


CLAIMS = {
    ("cifar10", "by 24.58"): [
        ({"kd-T": 0.95, "node1": 0.6}, "supported"),
        ({"kd-T": 0.85, "node1": 0.6}, "undecided"),  # 25 points, but 21 would do for these images
        ({"kd-T": 0.65, "node1": 0.6}, "contradicted"),
    ],
    ("svhn", "by 5.17"): [({"kd-T": 0.8, "node1": 0.64}, "supported"), ({"kd-T": 0.55, "node1": 0.64}, "contradicted")],
    ("cifar10", "the optimiser held"): [
        ({"kd-T": 0.8, "labels-sgd-scale": 0.6}, "supported"),
        ({"kd-T": 0.6, "labels-sgd-scale": 0.6}, "undecided"),
        ({"kd-T": 0.6, "labels-sgd-scale": 0.8}, "contradicted"),
    ],
    ("cifar10", "No student"): [({"kd-T": 0.5, "resnet": 0.8}, "supported"), ({"kd-T": 0.9, "resnet": 0.8}, "contradicted")],
    ("svhn", "Some students"): [({"kd-T": 0.9, "resnet": 0.8}, "supported"), ({"kd-T": 0.5, "resnet": 0.8}, "contradicted")],
    ("cifar10", "small temperature"): [
        ({"kd-T3": 0.5, "kd-T20": 0.8}, "supported"),
        ({"kd-T3": 0.8, "kd-T20": 0.5}, "contradicted"),
        ({"kd-T3": 0.7, "kd-T20": 0.7}, "undecided"),
    ],
    ("svhn", "Increasing the temperature"): [({"kd-T3": 0.8, "kd-T20": 0.5}, "supported")],
    ("cifar10", "robustness of NODE(1)"): [
        ({"kd-T": 0.9, "node1": 0.3}, "supported"),
        ({"kd-T": 0.3, "node1": 0.9}, "contradicted"),
    ],
    ("cifar10", "NODE(1) is not even"): [
        ({"node1": 0.2, "resnet": 0.9}, "supported"),
        ({"node1": 0.9, "resnet": 0.2}, "contradicted"),
    ],
    ("cifar10", "horizon improves robustness (undis"): [({"node1": 0.2, "node100": 0.9}, "supported")],
    ("cifar10", "It is the horizon"): [({"kd-node100": 0.95, "kd-scaled": 0.05}, "undecided")],  # an identity decides nothing
    ("cifar10", "falls slightly"): [({"kd-node100": 0.5, "kd-T": 0.8}, "supported")],
    ("cifar10", "larger than the depth"): [({}, "contradicted")],  # 12 evaluations are made up
}
CASES = [(dataset, words, *case) for (dataset, words), cases in CLAIMS.items() for case in cases]


def judged(root: Path, dataset: str, shares: Shares) -> dict[str, str]:
    """The verdict on each claim, where cells have these accuracies."""
    found = made_up(root, shares, 1, dataset, "all" if "kd-scaled" in shares else "claims")
    return {row[1]: row[2] for row in claims_table(found).rows}


@pytest.mark.parametrize(("dataset", "words", "shares", "verdict"), CASES)
def test_a_claim_is_judged_by_its_rows(dataset, words, shares, verdict, tmp_path):
    found = judged(tmp_path, dataset, shares)
    (sentence,) = [sentence for sentence in found if words in sentence]
    assert found[sentence] == verdict


def test_a_trend_with_the_teachers_depth_is_a_pattern(tmp_path):
    trend = {
        f"kd-T{T}-resnet{depth}": 0.5 + 0.1 * place for T in (3, 10, 20) for place, depth in enumerate((20, 32, 44, 56, 110))
    }
    found = judged(tmp_path, "cifar10", trend)
    assert next(verdict for sentence, verdict in found.items() if "no particular pattern" in sentence) == "contradicted"


def test_what_is_not_measured_is_not_judged(tmp_path):
    found = made_up(tmp_path, {}, 1, part="table1")
    verdicts = {row[1]: row[2] for row in claims_table(found).rows}
    assert verdicts["Distillation improves the accuracy of Neural ODEs by 24.58 points."] == "not measured"
    assert all(row[3] for row in claims_table(found).rows)


def test_every_claim_names_rows_that_exist(grid):
    for row in claims_table(grid).rows:
        names = row[4].split(", ")
        assert all((grid.path.parent / name / "evaluation.json").is_file() for name in names), row[1]


def test_every_claim_is_of_the_paper_and_judged_once():
    sentences = [(claim.sentence, claim.datasets) for claim in claims()]
    assert len(sentences) == len(set(sentences))
    assert all(isinstance(claim, Claim) and set(claim.datasets) <= {"cifar10", "svhn"} for claim in claims())
    assert {verdict.value for verdict in Verdict} == {"supported", "contradicted", "undecided", "not measured"}


def test_every_table_says_two_sentences(grid):
    for name in ("table1", "table2", "table3", "figure1", "controls", "factors", "solvers", "horizons", "claims"):
        said = say(grid, name)
        assert len(said) == 2, name
        assert all(sentence.endswith(".") for sentence in said)


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


def test_the_heat_map_shows_ours_and_the_papers(grid):
    ours, theirs = heat_map(grid).axes
    texts = [{text.get_text() for text in panel.texts} for panel in (ours, theirs)]
    assert f"{100 * spread(hits_of(grid, grid.best)).mean:.1f}" in texts[0]
    assert {"88.0", "–"} <= texts[1]  # ResNet-110 at T = 3 is unreadable
    assert len(ours.texts) == len(theirs.texts) == 15


def test_figures_draw_what_is_there(grid):
    assert len(attack_figure(grid).axes) == 2
    assert len(attack_figure(grid).axes[0].get_lines()) == 6
    assert [len(panel.get_lines()) for panel in horizon_figure(grid).axes] == [2, 2]
