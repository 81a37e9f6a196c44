"""The tables of a grid, from rows made up so that every mean, difference and verdict is known."""

import html.parser
import re
from dataclasses import replace
from pathlib import Path

import pytest

import fake_runs
from nodestill.experiments import asked_reproduction
from nodestill.experiments.grid_records import GridRecords, read_grid
from nodestill.experiments.records import RunRecords
from nodestill.experiments.reproduce import write_listing
from nodestill.experiments.schedule import standing
from nodestill.experiments.work import with_needs
from nodestill.flags import to_hex
from nodestill.intervals import student_quantile, weighted_interval
from nodestill.report import write_reproduction
from nodestill.report.claims import Claim, claims, claims_table
from nodestill.report.controlled import factors, structure
from nodestill.report.grid_figures import attack_figure, heat_map, horizon_figure
from nodestill.report.grid_page import grid_markdown
from nodestill.report.judges import Verdict
from nodestill.report.reproduced import sections, table1, table2
from nodestill.report.said import say
from nodestill.report.spread import (
    Spread,
    attacked,
    difference,
    difference_under_attack,
    mean_under_attack,
    reach_of_seeds,
    spread,
)

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


def with_shares(root: Path, shares: dict[str, dict[int, float]]) -> GridRecords:
    """Table 1 of which some cells have these accuracies, by seed; of other cells nothing is there."""
    asked, known = asked_reproduction("table1", "cifar10", "smoke", 3), fake_runs.known(root)
    for cell in asked.cells():
        if cell.seed in shares.get(cell.name, {}):
            (work,) = standing([cell], known, asked.scale).left.values()
            fake_runs.finish(work, known, shares[cell.name][cell.seed])
    return read_grid(write_listing(asked, known, {}).path)


def of_images(*parts: tuple[float, int]) -> tuple[float, float]:
    """How far the interval of a weighted sum of hits of a thousand images reaches to either side."""
    low, high = weighted_interval([(weight, (hits, 1000)) for weight, hits in parts], z=1.959964)
    mean = sum(weight * hits / 1000 for weight, hits in parts)
    return mean - low, high - mean


def reaches(found: Spread) -> tuple[float, float]:
    """How far an interval reaches to either side."""
    return found.mean - found.low, found.high - found.mean


def with_seeds(images: tuple[float, float], seeds: float) -> tuple[float, float]:
    """Both parts of an interval together."""
    return tuple((part**2 + seeds**2) ** 0.5 for part in images)


def test_a_mean_reaches_as_far_as_its_images_and_its_seeds_together(tmp_path):
    grid = with_shares(tmp_path, {"node1": {0: 0.52, 1: 0.56, 2: 0.6}})
    found = spread(grid, "node1")
    assert (found.mean, found.deviation, found.seeds) == (pytest.approx(0.56), pytest.approx(0.04), 3)
    assert reaches(found) == pytest.approx(with_seeds(of_images((1.0, 560)), student_quantile(2) * 0.04 / 3**0.5))
    assert found.percent() == "56.0 ± 4.0"
    assert spread(grid, "node100") is None


def test_seeds_that_agree_by_chance_do_not_make_a_number_exact(tmp_path):
    grid = with_shares(tmp_path, {"node1": {0: 0.5, 1: 0.5}, "node100": {0: 0.49, 1: 0.49}})
    found = difference(grid, "node1", "node100")
    assert (found.mean, found.deviation) == pytest.approx((0.01, 0.0))
    assert reaches(found) == pytest.approx(of_images((1.0, 500), (-1.0, 490)))
    assert reaches(spread(grid, "node1")) == pytest.approx(of_images((1.0, 500)))


def test_differences_are_paired_by_seed(tmp_path):
    grid = with_shares(tmp_path, {"node1": {0: 0.5, 1: 0.7, 2: 0.6}, "node100": {0: 0.4, 1: 0.64, 2: 0.46}})
    found = difference(grid, "node1", "node100")
    assert (found.mean, found.deviation, found.seeds) == (pytest.approx(0.1), pytest.approx(0.04), 3)
    pooled = ((2 * 0.1**2 + 2 * 0.12489996**2) / 4) ** 0.5  # of each cell over its own three seeds
    expected = with_seeds(of_images((1.0, 600), (-1.0, 500)), student_quantile(4) * pooled * (2 / 3) ** 0.5)
    assert reaches(found) == pytest.approx(expected)
    assert found.sign == 0
    wider = difference(grid, "node1", "node100", confidence=0.999)
    assert wider.low < found.low < found.high < wider.high
    assert Spread(0.014, -0.001, 0.03, None, 1).points() == "+1.4 (-0.1 to +3.0)"


def test_of_other_seeds_there_is_no_difference(tmp_path):
    assert difference(with_shares(tmp_path, {"node1": {0: 0.5}, "node100": {1: 0.5}}), "node1", "node100") is None


def test_one_pair_is_as_sure_as_seeds_of_other_cells_let_it_be(tmp_path):
    alone = {"node1": {0: 0.6}, "node100": {0: 0.54}}
    found = difference(with_shares(tmp_path / "alone", alone), "node1", "node100")
    images = of_images((1.0, 600), (-1.0, 540))
    assert reaches(found) == pytest.approx(images)
    grid = with_shares(tmp_path / "beside", {**alone, "resnet20": {0: 0.7, 1: 0.72, 2: 0.74}})
    assert reach_of_seeds(grid) == pytest.approx(student_quantile(2) * 0.02)
    widened = difference(grid, "node1", "node100")
    assert reaches(widened) == pytest.approx(with_seeds(images, 2**0.5 * student_quantile(2) * 0.02))
    assert (found.sign, widened.sign) == (1, 0)


def run_with(*rows: dict) -> RunRecords:
    """A run of which nothing is known but how it stood attacks."""
    return RunRecords(Path(), "distilled", "NODE(1)", {}, {}, [], {}, list(rows), [])


def test_only_the_images_that_both_were_attacked_on_are_compared():
    flags = [True, False, True, True, False, True]
    row = {"attack": "pgd", "eps_255": 8, "images": 6, "correct": 4, "which": to_hex(flags)}
    other = {**row, "attack": "mi-fgsm", "correct": 0, "which": to_hex([False] * 6)}
    assert attacked("pgd", 8)(run_with(row)) == (4, 6)
    assert attacked("pgd", 8, first=2)(run_with(row)) == (1, 2)
    assert attacked("pgd", 8, first=7)(run_with(row)) is None  # it was not attacked on so many
    assert attacked("pgd", 4)(run_with(row)) is None
    assert mean_under_attack(first=4)(run_with(row, other)) == (2, 4)  # 3 and 0 of 4
    without = {key: value for key, value in row.items() if key != "which"}
    assert attacked("pgd", 8, first=2)(run_with(without)) is None
    assert mean_under_attack(first=2)(run_with(other, without)) is None


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


CLAIMS = {
    ("cifar10", "by 24.58"): [
        ({"kd-T": 0.95, "node1": 0.6}, "supported"),
        ({"kd-T": 0.85, "node1": 0.6}, "undecided"),  # 25 points, but 21 would do for these images
        ({"kd-T": 0.65, "node1": 0.6}, "contradicted"),
    ],
    ("svhn", "by 5.17"): [({"kd-T": 0.8, "node1": 0.64}, "supported"), ({"kd-T": 0.55, "node1": 0.64}, "contradicted")],
    ("cifar10", "accuracy of Neural ODEs: the optimiser held"): [
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
    ("cifar10", "robustness of NODE(1)."): [
        ({"kd-T": 0.9, "node1": 0.3}, "supported"),
        ({"kd-T": 0.3, "node1": 0.9}, "contradicted"),
    ],
    ("cifar10", "NODE(1) is not even"): [
        ({"node1": 0.2, "resnet": 0.9}, "supported"),
        ({"node1": 0.9, "resnet": 0.2}, "contradicted"),
    ],
    ("cifar10", "horizon improves robustness (undis"): [({"node1": 0.2, "node100": 0.9}, "supported")],
    ("cifar10", "It is the horizon"): [({"kd-node100": 0.95, "kd-scaled": 0.05}, "undecided")],  # an identity decides nothing
    ("cifar10", "horizon improves robustness (distilled): the optimiser held"): [
        ({"kd-node100": 0.9, "kd-T": 0.9, "kd-adam": 0.3}, "supported"),
        ({"kd-node100": 0.3, "kd-T": 0.3, "kd-adam": 0.9}, "contradicted"),
    ],
    ("cifar10", "robustness of NODE(1): the optimiser held"): [
        ({"kd-T": 0.9, "node1": 0.9, "labels-sgd-scale": 0.3}, "supported"),
        ({"kd-T": 0.3, "node1": 0.3, "labels-sgd-scale": 0.9}, "contradicted"),
    ],
    ("cifar10", "falls slightly"): [
        ({"kd-node100": 0.5, "node100": 0.5, "kd-adam": 0.9, "node1": 0.5}, "supported"),
        ({"kd-node100": 0.9, "node100": 0.5, "kd-adam": 0.5, "node1": 0.5}, "contradicted"),
        ({"kd-node100": 0.5, "node100": 0.3, "kd-adam": 0.8, "node1": 0.6}, "undecided"),
    ],
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


def test_horizons_are_compared_on_the_images_that_both_were_attacked_on(grid):
    """NODE(100) is attacked on 500 made-up images, NODE(1) on a thousand; of these the first 500 count."""
    cells = {name: grid.named(name)[0].run for name in ("node100", "node1")}
    images = {name: {row["images"] for row in run.robustness} for name, run in cells.items()}
    assert images == {"node100": {500}, "node1": {1000}}
    found = difference_under_attack(grid, "node100", "node1", mean_under_attack)
    expected = [
        mean_under_attack()(grid.named("node100")[seed].run)[0] / 500
        - mean_under_attack(500)(grid.named("node1")[seed].run)[0] / 500
        for seed in (0, 1)
    ]
    assert found.mean == pytest.approx(sum(expected) / 2)


def test_an_attack_that_is_not_finished_is_not_compared(grid):
    broken = replace(grid.named("node1")[0], run=replace(grid.named("node1")[0].run, robustness=[]))
    half = replace(
        grid.named("node1")[1], run=replace(grid.named("node1")[1].run, robustness=grid.named("node1")[1].run.robustness[:3])
    )
    others = [cell for cell in grid.cells if cell.name != "node1"]
    found = replace(grid, cells=(*others, broken, half))
    assert difference_under_attack(found, "node100", "node1", mean_under_attack) is None


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
    assert f"{100 * spread(grid, grid.best).mean:.1f}" in texts[0]
    assert {"88.0", "–"} <= texts[1]  # ResNet-110 at T = 3 is unreadable
    assert len(ours.texts) == len(theirs.texts) == 15


def test_figures_draw_what_is_there(grid):
    assert len(attack_figure(grid).axes) == 2
    assert len(attack_figure(grid).axes[0].get_lines()) == 6
    assert [len(panel.get_lines()) for panel in horizon_figure(grid).axes] == [2, 2]
