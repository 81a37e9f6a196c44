"""Tableaus: the order conditions over all rooted trees, in rational arithmetic; the coefficients that SciPy has."""

from fractions import Fraction as F

import pytest
import torch

from nodestill.ode import Method
from nodestill.ode.tableaus import column, tableau, weights
from ode_oracles import METHODS, A, B, C, E, density, elementary_weight, rooted_trees

METHOD = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.value)


def residuals(method, b, order):
    """What is left of the conditions of one order; of those coefficients that are published as decimals, the 14th digit on."""
    table, published = tableau(method), 2e-14 if method is Method.TSIT5 else 0
    left = [elementary_weight(tree, table.a, b) - F(1, density(tree)) for tree in rooted_trees(order)]
    return [residual for residual in left if abs(residual) > published]


def test_the_oracle_knows_all_trees():
    assert [len(rooted_trees(n)) for n in range(1, 8)] == [1, 1, 2, 4, 9, 20, 48]  # Butcher 2016, table 301(I); OEIS A000081
    assert [density(tree) for tree in rooted_trees(4)] == [4, 8, 12, 24]


@METHOD
def test_coefficients_are_exact_and_explicit(method):
    table = tableau(method)
    assert all(isinstance(w, F) for row in (table.c, table.b, table.error, *table.a) for w in row)
    assert [len(row) for row in table.a] == list(range(table.stages))
    assert len(table.b) == table.stages
    assert len(table.error) in (0, table.stages)


@METHOD
def test_nodes_are_the_row_sums(method):
    table = tableau(method)
    left = [float(sum(row, F(0)) - c) for row, c in zip(table.a, table.c)]
    assert left == pytest.approx([0] * len(left), abs=3e-15)


@METHOD
def test_solution_has_its_order_and_no_higher_one(method):
    table = tableau(method)
    assert [residuals(method, table.b, order) for order in range(1, table.order + 1)] == [[]] * table.order
    assert residuals(method, table.b, table.order + 1)


@METHOD
def test_embedded_solution_is_one_order_lower(method):
    table = tableau(method)
    assert bool(table.error) == method.is_adaptive
    if table.error:
        b_hat = [b - e for b, e in zip(table.b, table.error)]
        assert [residuals(method, b_hat, order) for order in range(1, table.order)] == [[]] * (table.order - 1)
        assert residuals(method, b_hat, table.order)


@METHOD
def test_without_error_is_the_same_method_with_only_the_stages_it_needs(method):
    table = tableau(method)
    short = table.without_error
    needed = {"euler": 1, "midpoint": 2, "rk4": 4, "dopri5": 6, "tsit5": 6, "bosh3": 3, "heun-euler": 2}
    assert short.stages == needed[method.value]
    assert (short.order, short.error) == (table.order, ())
    assert (short.a, short.b, short.c) == tuple(whole[: short.stages] for whole in (table.a, table.b, table.c))
    assert short.b[-1] != 0
    assert all(w == 0 for w in table.b[short.stages :])


@METHOD
def test_last_slope_is_reused_just_where_it_is_the_next_first_one(method):
    table = tableau(method)
    assert table.reuses_last == method.is_adaptive
    assert table.reuses_last == (table.stages > 1 and (*table.a[-1], 0) == table.b and table.c[-1] == 1)


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
