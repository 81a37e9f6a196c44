"""Tableaus: the order conditions over all rooted trees, in rational arithmetic; the coefficients that SciPy has."""

from fractions import Fraction as F

import pytest
import torch

from nodestill.ode import Method
from nodestill.ode.tableaus import column, tableau, weights
from ode_oracles import A, B, C, E, density, elementary_weight, rooted_trees

METHODS = pytest.mark.parametrize("method", list(Method), ids=lambda method: method.value)


def residuals(table, b, order):
    return [elementary_weight(tree, table.a, b) - F(1, density(tree)) for tree in rooted_trees(order)]


def test_the_oracle_knows_all_trees():
    assert [len(rooted_trees(n)) for n in range(1, 8)] == [1, 1, 2, 4, 9, 20, 48]  # Butcher 2016, table 301(I); OEIS A000081
    assert [density(tree) for tree in rooted_trees(4)] == [4, 8, 12, 24]


@METHODS
def test_coefficients_are_exact_and_explicit(method):
    table = tableau(method)
    assert all(isinstance(w, F) for row in (table.c, table.b, table.error, *table.a) for w in row)
    assert [len(row) for row in table.a] == list(range(table.stages))
    assert len(table.b) == table.stages
    assert len(table.error) in (0, table.stages)


@METHODS
def test_nodes_are_the_row_sums(method):
    table = tableau(method)
    assert [sum(row, F(0)) for row in table.a] == list(table.c)


@METHODS
def test_solution_has_its_order_and_no_higher_one(method):
    table = tableau(method)
    for order in range(1, table.order + 1):
        assert residuals(table, table.b, order) == [0] * len(rooted_trees(order))
    assert any(residuals(table, table.b, table.order + 1))


@METHODS
def test_embedded_solution_is_one_order_lower(method):
    table = tableau(method)
    assert bool(table.error) == method.is_adaptive
    if table.error:
        b_hat = [b - e for b, e in zip(table.b, table.error)]
        for order in range(1, table.order):
            assert residuals(table, b_hat, order) == [0] * len(rooted_trees(order))
        assert any(residuals(table, b_hat, table.order))


@METHODS
def test_without_error_is_the_same_method_with_only_the_stages_it_needs(method):
    table = tableau(method)
    short = table.without_error
    assert short.error == ()
    assert short.stages == {"euler": 1, "midpoint": 2, "rk4": 4, "dopri5": 6}[method.value]
    assert any(w != 0 for w in (short.b[-1],))
    assert all(w == 0 for w in table.b[short.stages :])
    for order in range(1, table.order + 1):
        assert not any(residuals(short, short.b, order))


def test_last_slope_is_reused_only_where_it_is_the_next_first_one():
    assert [method for method in Method if tableau(method).reuses_last] == [Method.DOPRI5]


def test_dopri5_has_the_coefficients_of_scipy():
    table = tableau(Method.DOPRI5)
    close = {"rel": 1e-15, "abs": 1e-16}
    for ours, theirs in zip(table.a[:6], A):
        assert [float(w) for w in ours] == pytest.approx(theirs[: len(ours)], **close)
    assert [float(w) for w in table.b] == pytest.approx([*B, 0.0], **close)
    assert [float(w) for w in table.c] == pytest.approx([*C, 1.0], **close)
    assert [-float(w) for w in table.error] == pytest.approx(E, rel=1e-14, abs=1e-17)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_are_rounded_once(dtype):
    row = weights((F(1, 3), F(-2)), dtype, torch.device("cpu"))
    assert torch.equal(row, torch.tensor([1 / 3, -2.0], dtype=dtype))


def test_column_is_a_column_of_the_matrix():
    table = tableau(Method.DOPRI5)
    matrix = [[*row, *[F(0)] * (7 - len(row))] for row in table.a]
    for j in range(6):
        assert column(table, j, 6) == tuple(matrix[i][j] for i in range(j + 1, 6))
