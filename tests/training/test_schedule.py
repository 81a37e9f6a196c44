"""The learning rate at its boundaries, the optimisers, and what a plan refuses."""

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn, optim

from nodestill.errors import RecipeError
from nodestill.training import Optimizer, Schedule, Training, learning_rate
from nodestill.training.schedule import build_optimizer

PLAN = Training(Optimizer.SGD, 0.1, 300)
TRIANGLE = Training(Optimizer.SGD, 0.4, 4, schedule=Schedule.TRIANGLE, milestones=(0.25,))


@pytest.mark.parametrize(
    ("epoch", "expected"), [(0, 0.1), (149, 0.1), (150, 0.01), (224, 0.01), (225, 0.001), (299, 0.001)]
)  # Chu et al. 2022, section 3.2: one tenth from 1/2, one hundredth of the first rate from 3/4
def test_the_papers_schedule_at_its_boundaries(epoch, expected):
    for step in (0, 390):
        assert learning_rate(PLAN, epoch * 391 + step, 391) == pytest.approx(expected, rel=1e-12)


@given(epochs=st.integers(1, 400), percent=st.integers(1, 99))
@example(epochs=100, percent=55)  # 0.55 * 100 is more than 55
def test_a_milestone_takes_effect_at_the_first_epoch_that_reaches_it(epochs, percent):
    plan = Training(Optimizer.SGD, 1.0, epochs, milestones=(percent / 100,))
    first = -(-percent * epochs // 100)  # in integers
    rates = [learning_rate(plan, epoch, 1) for epoch in range(epochs)]
    assert rates == [1.0] * first + [0.1] * (epochs - first)


def test_without_milestones_the_rate_is_constant():
    plan = replace(PLAN, milestones=())
    assert {learning_rate(plan, step, 2) for step in range(600)} == {0.1}


def test_the_triangle_rises_to_its_peak_and_falls_to_almost_nothing():
    total = 4 * 10
    rates = [learning_rate(TRIANGLE, step, 10) for step in range(total)]
    expected = [0.4 * min((k / 41) / 0.25, (1 - k / 41) / 0.75) for k in range(1, 41)]
    assert rates == pytest.approx(expected)
    peak = rates.index(max(rates))
    assert peak == 9  # the tenth of forty steps, a quarter of the way
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert 0 < rates[-1] == pytest.approx(0.4 / 0.75 / 41)
    assert 0.97 * 0.4 < max(rates) <= 0.4


def test_the_shortest_triangle():
    plan = replace(TRIANGLE, epochs=1, milestones=(0.5,))
    assert [learning_rate(plan, step, 3) for step in range(3)] == pytest.approx([0.2, 0.4, 0.2])
    assert learning_rate(plan, 0, 1) == pytest.approx(0.4)


def test_optimisers_get_the_plans_numbers():
    model = nn.Linear(2, 2)
    sgd = build_optimizer(model, replace(PLAN, momentum=0.7, weight_decay=0.01))
    assert isinstance(sgd, optim.SGD)
    group = sgd.param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"], group["nesterov"]) == (0.1, 0.7, 0.01, False)
    assert [p is q for p, q in zip(group["params"], model.parameters(), strict=True)] == [True, True]
    adam = build_optimizer(model, replace(PLAN, optimizer=Optimizer.ADAM, weight_decay=0.01))
    assert isinstance(adam, optim.Adam)
    assert (adam.param_groups[0]["betas"], adam.param_groups[0]["weight_decay"]) == ((0.9, 0.999), 0.01)


def test_the_triangle_uses_nesterovs_momentum_if_there_is_any():
    assert build_optimizer(nn.Linear(2, 2), TRIANGLE).param_groups[0]["nesterov"] is True
    assert build_optimizer(nn.Linear(2, 2), replace(TRIANGLE, momentum=0.0)).param_groups[0]["nesterov"] is False


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("lr", 0.0, "training.lr must be positive and finite, got 0.0; 0.1 suits SGD"),
        ("lr", float("nan"), "training.lr"),
        ("lr", float("inf"), "training.lr"),
        ("epochs", 0, "training.epochs must be at least 1, got 0"),
        ("momentum", 1.0, r"training.momentum must lie in \[0, 1\)"),
        ("momentum", -0.1, "training.momentum"),
        ("weight_decay", -1e-4, "training.weight_decay must not be negative"),
        ("batch_size", 0, "training.batch_size"),
        ("milestones", (0.75, 0.5), "training.milestones must be increasing"),
        ("milestones", (0.5, 0.5), "training.milestones"),
        ("milestones", (0.5, 1.0), "training.milestones"),
        ("milestones", (0.0,), "training.milestones"),
        ("sides", (24, 0), "training.sides must be pixels of at least 1"),
        ("sides", (24,) * PLAN.epochs, "training.sides must be pixels of at least 1, for fewer epochs than there are"),
        ("decay", 0.0, r"training.decay must lie in \(0, 1\]"),
        ("decay", 1.5, "training.decay"),
        ("label_smoothing", 1.0, "training.label_smoothing"),
        ("schedule", Schedule.TRIANGLE, "training.milestones must be one peak for triangle"),
    ],
)
def test_a_plan_that_cannot_be_meant_is_refused(field, value, said):
    with pytest.raises(RecipeError, match=said):
        replace(PLAN, **{field: value})


def test_the_ends_of_the_ranges_are_allowed():
    replace(PLAN, momentum=0.0, weight_decay=0.0, decay=1.0, label_smoothing=0.0, epochs=1, batch_size=1)
