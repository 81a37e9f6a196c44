"""Means and differences over seeds: their intervals, known by hand, and on which images models are compared."""

from dataclasses import replace
from pathlib import Path

import pytest

import fake_runs
from nodestill.experiments.records import RunRecords
from nodestill.flags import to_hex
from nodestill.intervals import student_quantile, weighted_interval
from nodestill.report.spread import Spread, about_intervals, difference, reach_of_seeds, spread
from nodestill.report.under_attack import attacked, difference_under_attack, mean_under_attack
from nodestill.reproduction import asked_reproduction
from nodestill.reproduction.grid_records import GridRecords, read_grid
from nodestill.reproduction.reproduce import write_listing
from nodestill.reproduction.schedule import standing


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


def test_a_difference_that_rounds_to_nothing_has_no_minus():
    assert Spread(-0.0001, -0.001, 0.001, None, (0,)).points() == "+0.0 (-0.1 to +0.1)"


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
    assert Spread(0.014, -0.001, 0.03, None, (0,)).points() == "+1.4 (-0.1 to +3.0)"


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
    assert mean_under_attack(first=4)(run_with(row, other)) == (1.5, 4)  # 3 and 0 of 4, not rounded to an image
    without = {key: value for key, value in row.items() if key != "which"}
    assert attacked("pgd", 8, first=2)(run_with(without)) is None
    assert mean_under_attack(first=2)(run_with(other, without)) is None


def test_horizons_are_compared_on_the_images_that_both_were_attacked_on(grid):
    """NODE(100) is attacked on 500 made-up images, NODE(1) on a thousand; of these the first 500 count."""
    cells = {name: grid.named(name)[0].run for name in ("node100", "node1")}
    images = {name: {row["images"] for row in run.robustness} for name, run in cells.items()}
    assert images == {"node100": {500}, "node1": {1000}}
    found = difference_under_attack(grid, "node100", "node1")
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
    assert difference_under_attack(found, "node100", "node1") is None


def test_two_attacks_that_were_stopped_alike_are_no_whole_ones(grid):
    def cut(cell):
        return replace(cell, run=replace(cell.run, robustness=cell.run.robustness[:3]))

    found = replace(grid, cells=tuple(cut(cell) if cell.name in ("node1", "node100") else cell for cell in grid.cells))
    assert difference_under_attack(grid, "node100", "node1") is not None
    assert difference_under_attack(found, "node100", "node1") is None


def with_flags(grid: GridRecords, flags: dict[str, list[bool] | None]) -> GridRecords:
    """A grid whose cells stay right on these images at every radius and attack, or on half of a hundred, not said which."""

    def changed(row: dict, right: list[bool] | None) -> dict:
        if right is None:
            return {key: value for key, value in row.items() if key != "which"} | {"images": 100, "correct": 50}
        return {**row, "images": len(right), "correct": sum(right), "which": to_hex(right)}

    def attacked_so(cell, right):
        return replace(cell, run=replace(cell.run, robustness=[changed(row, right) for row in cell.run.robustness]))

    found = (attacked_so(cell, flags[cell.name]) for cell in grid.cells if cell.name in flags and cell.seed == 0)
    return replace(grid, cells=tuple(found))


def test_models_under_attack_are_compared_image_by_image(grid):
    """Of a hundred images both are right on 50, one alone on 10: surely better, though intervals of 60 and 50 overlap."""
    better, worse = [place < 60 for place in range(100)], [place < 50 for place in range(100)]
    found = difference_under_attack(with_flags(grid, {"node1": better, "resnet44": worse}), "node1", "resnet44")
    centre = 10 / 102
    reach = 1.959964 * ((12 / 102 - centre**2) / 102) ** 0.5  # Bonett and Price, by hand
    assert (found.mean, found.low, found.high) == pytest.approx((0.1, centre - reach, centre + reach))
    assert found.sign == 1
    apart = difference_under_attack(with_flags(grid, {"node1": better, "resnet44": None}), "node1", "resnet44")
    expected = weighted_interval([(1.0, (60, 100)), (-1.0, (50, 100))], 1.959964)
    assert (apart.low, apart.high) == pytest.approx(expected)
    assert apart.sign == 0  # which images stayed right is not said


def test_models_that_no_image_tells_apart_have_an_interval_all_the_same(grid):
    same = [place < 50 for place in range(100)]
    found = difference_under_attack(with_flags(grid, {"node1": same, "resnet44": same}), "node1", "resnet44")
    assert found.mean == 0.0
    assert reaches(found) == pytest.approx((1.959964 * 2**0.5 / 102,) * 2)


def test_the_note_says_which_differences_are_image_by_image(grid):
    assert "attacked accuracies are compared image by image" in about_intervals(grid)


def test_a_size_has_no_sign_and_its_smaller_end_first():
    assert Spread(-0.174, -0.222, -0.125, None, (0,)).size() == "17.4 (12.5 to 22.2)"
    assert Spread(0.174, 0.125, 0.222, None, (0,)).size() == "17.4 (12.5 to 22.2)"
