"""The claims of the paper: each is judged by its rows, made up so that the verdict is known, or not at all."""

from dataclasses import replace
from pathlib import Path

import pytest

from nodestill.report.claims import Claim, claims, claims_table, evidence_table, judged_claims
from nodestill.report.horizon_judges import depth, falls_with_the_horizon
from nodestill.report.judges import Verdict
from nodestill.report.robust_judges import more_robust
from nodestill.reproduction.grid_records import GridRecords
from report.made_grids import Shares, made_up

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
    ("cifar10", "It is the horizon"): [
        ({"kd-node100": 0.95, "kd-scaled": 0.05, "kd-adam": 0.3}, "supported"),
        ({"kd-node100": 0.95, "kd-scaled": 0.95, "kd-adam": 0.3}, "contradicted"),
        ({"kd-node100": 0.5, "kd-scaled": 0.95, "kd-adam": 0.5}, "undecided"),  # a longer horizon is not more robust
    ],
    ("cifar10", "end time of 2"): [
        ({"kd-end-2": 0.3, "kd-T": 0.6}, "supported"),
        ({"kd-end-2": 0.6, "kd-T": 0.3}, "contradicted"),
    ],
    ("cifar10", "cannot be over 5"): [
        ({"kd-end-5": 0.08}, "supported"),
        ({"kd-end-5": 0.1}, "undecided"),  # it may be guessing, and may not
        ({"kd-end-5": 0.4}, "undecided"),  # of longer ones it says nothing
    ],
    ("svhn", "less accurate than ResNets"): [
        ({"node": 0.3, "resnet": 0.9}, "supported"),
        ({"node1": 0.3, "node100": 0.9, "resnet": 0.9}, "undecided"),
        ({"node1": 0.3, "node100": 0.9, "resnet": 0.5}, "contradicted"),
    ],
    ("cifar10", "Beyond a certain temperature"): [
        ({"kd-T10": 0.7, "kd-T20": 0.6}, "supported"),
        ({"kd-T10": 0.7, "kd-T20": 0.705}, "undecided"),
        ({"kd-T10": 0.5, "kd-T20": 0.8}, "contradicted"),
    ],
    ("cifar10", "significantly robust"): [({"kd-node100": 0.9, "resnet": 0.3}, "supported")],
    ("svhn", "does not outperform ResNet"): [
        ({"kd-node100": 0.3, "resnet": 0.9}, "supported"),
        ({"kd-node100": 0.9, "resnet": 0.3}, "contradicted"),
    ],
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
        ({"kd-node100": 0.3, "node100": 0.6, "kd-adam": 0.5, "node1": 0.5}, "undecided"),  # no gain at 1 that could fall
    ],
    ("cifar10", "larger than the depth"): [({}, "undecided")],  # the made-up scores name no tolerance
}
CASES = [(dataset, words, *case) for (dataset, words), cases in CLAIMS.items() for case in cases]


def judged(root: Path, dataset: str, shares: Shares) -> dict[str, str]:
    """The verdict on each claim, where cells have these accuracies."""
    of_controls = any(name.startswith(("kd-scaled", "kd-end")) for name in shares)
    found = made_up(root, shares, 1, dataset, "all" if of_controls else "claims")
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


@pytest.mark.parametrize(("own", "said"), [(0.9, ", so their depth is not told from how well they are trained"), (0.5, "")])
def test_a_trend_says_how_good_the_teachers_are_themselves(own, said, tmp_path):
    found = claims_table(made_up(tmp_path, {"resnet": 0.5, "resnet20": own}, 1, part="claims"))
    (measured,) = [row[3] for row in found.rows if "no particular pattern" in row[1]]
    assert measured.endswith(f" points; these two teachers have {100 * own:.1f} and 50.0 % themselves{said}")


def test_what_is_not_measured_is_not_judged(tmp_path):
    found = made_up(tmp_path, {}, 1, part="table1")
    verdicts = {row[1]: row[2] for row in claims_table(found).rows}
    assert verdicts["Distillation improves the accuracy of Neural ODEs by 24.58 points."] == "not measured"
    assert all(row[3] for row in claims_table(found).rows)


def test_a_claim_about_robustness_says_how_good_both_are_without_an_attack(tmp_path):
    found = claims_table(made_up(tmp_path, {"node1": 0.25, "node100": 0.75}, 1, part="claims"))
    (measured,) = [row[3] for row in found.rows if "horizon improves robustness (undis" in row[1]]
    assert measured.endswith("points; of all clean images 75.0 and 25.0 % are right")


def test_the_run_folders_of_every_claim_are_listed(grid):
    """One row a claim and cell: with all its seeds, and no longer than they are."""
    listed: dict[str, dict[str, list[str]]] = {}
    for _, sentence, name, folders in evidence_table(grid).rows:
        listed.setdefault(sentence, {})[name] = folders.split(", ")
        assert all((grid.path.parent / folder / "evaluation.json").is_file() for folder in folders.split(", "))
    for claim, judged in judged_claims(grid):
        expected: dict[str, list[str]] = {}
        for name, seed in judged.rows:
            expected.setdefault(name, []).append(grid.named(name)[seed].folder)
        assert listed[claim.sentence] == expected


def test_a_claim_names_its_first_cells_and_counts_the_others(grid):
    rows = {row[1]: row[4] for row in claims_table(grid).rows}
    assert rows["No student outperforms its teacher."] == "kd-T3-resnet20, resnet20, kd-T3-resnet32, … (17 more); trainings: 40"
    assert rows["NODE(500) keeps 20 % at ε = 20/255."] == "node500; trainings: 2"
    assert all(len(cells) < 100 for cells in rows.values())


def test_every_claim_is_of_the_paper_and_judged_once():
    sentences = [(claim.sentence, claim.datasets) for claim in claims()]
    assert len(sentences) == len(set(sentences))
    assert all(isinstance(claim, Claim) and set(claim.datasets) <= {"cifar10", "svhn"} for claim in claims())
    assert {verdict.value for verdict in Verdict} == {"supported", "contradicted", "undecided", "not measured"}


def with_evaluations(grid: GridRecords, own: float, finer: float) -> GridRecords:
    """A grid whose best cell evaluates f so often at its own tolerance, and so often at a finer one."""

    def changed(cell):
        run = replace(cell.run, evaluation={**cell.run.evaluation, "evaluations": {"mean": own}})
        return replace(cell, run=run, solvers=({"name": "finer", "solver": {"rtol": 1e-6}, "evaluations": finer},))

    return replace(grid, cells=tuple(changed(cell) if cell.name == grid.best else cell for cell in grid.cells))


def test_depth_is_judged_at_every_tolerance_at_which_evaluations_were_counted(grid):
    """A hair below twenty is twenty evaluations; what a finer tolerance alone exceeds decides nothing."""
    cases = {
        (19.999, 19.0): "contradicted",
        (19.999, 80.0): "undecided",
        (50.0, 80.0): "supported",
        (20.4, 20.4): "contradicted",
    }
    for (own, finer), verdict in cases.items():
        assert depth(with_evaluations(grid, own, finer)).verdict.value == verdict
    assert "20 at rtol 0.1 (" in depth(with_evaluations(grid, 19.999, 80.0)).measured
    assert "80 at rtol 1e-06" in depth(with_evaluations(grid, 19.999, 80.0)).measured


def test_one_seed_decides_nothing_as_long_as_others_are_to_come(grid):
    """With a second seed of anything it is known how far seeds lie apart; where one is all that was asked for, it is all."""
    whole = {row[1]: row[2] for row in claims_table(grid).rows}
    first = tuple(cell if cell.seed == 0 else replace(cell, run=None) for cell in grid.cells)
    begun = claims_table(replace(grid, cells=first)).rows
    assert {"supported", "contradicted"} <= set(whole.values())
    assert {row[2] for row in begun} == {"undecided"}
    assert all(row[3].endswith("; of one seed, others are to come") for row in begun)
    asked_for_one = claims_table(replace(grid, cells=tuple(cell for cell in first if cell.seed == 0))).rows
    assert {"supported", "contradicted"} <= {row[2] for row in asked_for_one}


@pytest.mark.parametrize(("clean", "verdict"), [(0.5, "contradicted"), (0.1, "undecided")])
def test_a_model_that_has_learned_nothing_decides_nothing_by_itself(clean, verdict, tmp_path):
    """NODE(500) keeps nothing near 20 % at 20/255, whether it learned something or guesses."""
    found = claims_table(made_up(tmp_path, {"node500": clean}, 1, part="claims"))
    ((said, measured),) = [(row[2], row[3]) for row in found.rows if row[1].startswith("NODE(500) keeps")]
    assert said == verdict
    assert measured.endswith("; clean, it is not told from guessing") == (verdict == "undecided")


def test_evaluations_at_one_tolerance_decide_nothing(grid):
    alone = with_evaluations(grid, 19.0, 19.0)
    found = depth(replace(alone, cells=tuple(replace(cell, solvers=()) for cell in alone.cells)))
    assert found.verdict is Verdict.UNDECIDED
    assert found.measured.endswith("the paper has no tolerance, and no finer one was scored")
    assert not depth(alone).measured.endswith("scored")


def test_both_gains_are_printed_where_one_is_said_to_fall(grid):
    assert " at horizon 100 and " in falls_with_the_horizon(grid).measured


def test_the_rows_of_a_claim_are_those_that_were_used(grid):
    """A second seed of one model whose attack is not finished is neither compared nor named, nor is its pair."""
    cut = {("node100", 1)}
    cells = (
        replace(cell, run=replace(cell.run, robustness=cell.run.robustness[:2])) if (cell.name, cell.seed) in cut else cell
        for cell in grid.cells
    )
    found = more_robust("node100", "node1")(replace(grid, cells=tuple(cells)))
    assert found.rows == (("node100", 0), ("node1", 0))
    clean = [100 * grid.named(name)[0].run.evaluation["clean"]["accuracy"] for name in ("node100", "node1")]
    assert found.measured.endswith(f"of all clean images {clean[0]:.1f} and {clean[1]:.1f} % are right")
    assert more_robust("node100", "node1")(grid).rows == (("node100", 0), ("node100", 1), ("node1", 0), ("node1", 1))
