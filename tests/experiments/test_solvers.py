"""A model scored under other solvers: the rows against predictions made by hand."""

from dataclasses import replace

import pytest
import torch

import tiny
from nodestill.errors import DataError, InputError
from nodestill.experiments import Workspace, score_solvers, solver_rows
from nodestill.experiments.fit import train_member
from nodestill.experiments.loaded import Loaded
from nodestill.experiments.members import build_model
from nodestill.models import Norm
from nodestill.ode import Method, Solver


def loaded(solver: Solver, t1: float = 1.0) -> Loaded:
    settings = replace(tiny.student(tiny.SGD, None, t1).model, solver=solver, norm=Norm.NONE)
    model = build_model(settings, 0, 3).eval().requires_grad_(False)
    return Loaded(model, ("a", "b", "c"), {"title": "NODE(1)"})


def share(hits: torch.Tensor) -> float:
    return float(hits.double().mean())


@pytest.mark.parametrize("solver", [Solver(Method.EULER, steps=1), Solver(rtol=1e-2, atol=1e-2)])
def test_every_row_says_what_the_model_says_under_that_solver(solver):
    slopes = torch.randint(0, 256, (200, 3, 1, 8), dtype=torch.uint8).sort().values.expand(-1, -1, 8, -1)  # no mirror images
    data, subject = replace(tiny.images(200), images=slopes.contiguous()), loaded(solver)
    images, model = data.images.float() / 255, subject.model
    features = model.head[0](model.encode(images))
    model.head[1].bias.copy_(-model.head[1].weight @ features.mean(0))  # so that all classes are predicted
    rows = {row.name: row for row in solver_rows(subject, data)}
    assert list(rows) == ["own", "finer", "other order", "adaptive", "no equation", "own, flips averaged"]
    own = model(images).argmax(1)
    for name, row in rows.items():
        logits = model.with_solver(row.solver, t1=row.t1)(images)
        if name == "own, flips averaged":
            logits = logits + model(images.flip(3))
        predicted = logits.argmax(1)
        assert row.accuracy == pytest.approx(share(predicted == data.labels))
        assert row.difference == pytest.approx(share(predicted == data.labels) - share(own == data.labels))
        assert row.agreement == pytest.approx(share(predicted == own))
        assert (row.images, row.failed) == (200, 0)
    assert (rows["no equation"].t1, rows["no equation"].evaluations) == (0.0, 0.0)
    assert rows["finer"].evaluations > rows["own"].evaluations
    assert rows["adaptive"].solver.rtol == 1e-5
    assert rows["own, flips averaged"].evaluations == pytest.approx(2 * rows["own"].evaluations, rel=0.2)
    assert rows["no equation"].agreement < 1  # else this test could not tell one from another
    expected = Solver(Method.EULER, steps=4) if solver.steps else Solver(rtol=1e-2 / 16, atol=1e-2 / 16)
    assert rows["finer"].solver == expected


def test_an_image_that_does_not_arrive_is_wrong():
    subject = loaded(Solver(max_steps=1, rtol=1e-9, atol=1e-9))
    row = next(iter(solver_rows(subject, tiny.images(10))))
    assert (row.failed, row.accuracy, row.agreement) == (10, 0.0, 0.0)


def test_a_model_without_an_equation_is_refused():
    with pytest.raises(InputError, match="solves no equation"):
        next(solver_rows(loaded(Solver(), t1=0.0), tiny.images(10)))


def test_rows_are_kept_in_the_run_folder(tmp_path):
    asked = tiny.asked(tmp_path, tiny.student(tiny.SGD, None))
    train_member(asked, "cpu", 1)
    workspace, told = Workspace(asked.store, accelerator="cpu"), []
    workspace = replace(workspace, watch=lambda *news: told.append(news))
    rows = score_solvers(asked.folder, asked.test_set, workspace)
    kept = asked.folder.rows("solvers.jsonl")
    assert [row["name"] for row in kept] == [row.name for row in rows]
    assert kept[0]["accuracy"] == asked.folder.read("evaluation.json")["clean"]["accuracy"]
    assert kept[0]["data"] == "made by a test"
    assert told[-1][1:3] == (30, 30)
    with pytest.raises(DataError, match="classes"):
        score_solvers(asked.folder, tiny.images(20, classes=4), workspace)


def test_rows_of_other_images_stay_and_those_of_the_same_are_replaced(tmp_path):
    asked = tiny.asked(tmp_path, tiny.student(tiny.SGD, None))
    train_member(asked, "cpu", 1)
    workspace = Workspace(asked.store, accelerator="cpu")
    others = replace(asked.test_set, provenance="other pixels")
    for images in (asked.test_set, asked.test_set.first(20), asked.test_set, others):
        score_solvers(asked.folder, images, workspace)
    found = [(row["data"], row["images"]) for row in asked.folder.rows("solvers.jsonl") if row["name"] == "own"]
    assert found == [("made by a test", 20), ("made by a test", 30), ("other pixels", 30)]
