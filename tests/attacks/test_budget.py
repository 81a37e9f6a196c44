"""Budgets: the paper's table of steps, projection, and the check of what an attack hands out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nodestill.attacks.budget import LinfBudget, paper_budget, project, require_admissible
from nodestill.errors import InputError, NodestillError

STEPS = [0, 1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13, 15, 16, 17, 18, 20, 21, 22, 23, 24]


def test_paper_budget_gives_the_papers_steps():
    budgets = [paper_budget(eps) for eps in range(21)]
    assert [budget.steps for budget in budgets] == STEPS
    assert all(budget.step_255 == 1 for budget in budgets)
    assert [budget.eps_255 for budget in budgets] == list(range(21))


def test_pixel_units():
    budget = LinfBudget(8, step_255=2)
    assert (budget.eps, budget.step) == (8 / 255, 2 / 255)


@pytest.mark.parametrize("values", [(-1, 1, 1), (256, 1, 1), (8, 0, 1), (8, 1, -1)])
def test_impossible_budgets_are_refused(values):
    with pytest.raises(InputError):
        LinfBudget(*values)


@given(pixel=st.floats(0, 1), moved=st.floats(-2, 3), eps_255=st.integers(0, 255))
def test_projection_is_the_nearest_admissible_point(pixel, moved, eps_255):
    images = torch.full((1, 3, 1, 1), pixel, dtype=torch.float64)
    projected = project(torch.full_like(images, moved), images, eps_255 / 255)
    nearest = min(max(moved, pixel - eps_255 / 255, 0.0), pixel + eps_255 / 255, 1.0)
    torch.testing.assert_close(projected, torch.full_like(images, nearest), atol=1e-15, rtol=0)


@pytest.mark.parametrize("pixel", [0.5 + 8.001 / 255, 1.001, -0.001, float("nan")])
def test_a_breach_is_an_error(pixel):
    images = torch.full((2, 3, 2, 2), 0.5)
    adversarial = images.clone()
    adversarial[1, 0, 0, 0] = pixel
    with pytest.raises(NodestillError, match="Internal breach"):
        require_admissible(adversarial, images, 8 / 255)


def test_the_radius_itself_is_no_breach():
    images = torch.full((1, 3, 2, 2), 0.5)
    require_admissible(images + 8 / 255, images, 8 / 255)
