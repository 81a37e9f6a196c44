"""Tableaus: the order conditions over all rooted trees, in rational arithmetic; the coefficients that SciPy has."""

from fractions import Fraction as F

import pytest
import torch

from nodestill.models import Activation, ConvDynamics, Norm
from nodestill.ode import Method, Solver, StepRecord, solve
from nodestill.ode.tableaus import column, tableau, weights
from ode_oracles import METHODS, A, B, C, E, Field, density, elementary_weight, rooted_trees

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
    needed = {"euler": 1, "midpoint": 2, "rk4": 4, "dopri5": 6, "tsit5": 6, "bosh3": 3, "even3": 3, "even4": 5, "heun-euler": 2}
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


def of_a_kink(method):
    """Root mean squares, over where in a step of 1 a kink of size 1 lies, of the error that it makes and of its estimate."""
    place = torch.linspace(0, 1, 2_001, dtype=torch.float64)[:, None]
    solver = Solver(method, rtol=1e6, atol=1e6, first_step=1.0)
    found = solve(Field(lambda t, y: (t - place).clamp_min(0)), torch.zeros_like(place), 0.0, 1.0, solver)
    assert found.stats.accepted.tolist() == [1] * len(place)
    error = (1 - place).square() / 2 - found.y1
    return float(error.square().mean().sqrt()), float(found.error.square().mean().sqrt())


def test_even_methods_lose_little_at_a_kink_and_see_it():
    methods = (Method.BOSH3, Method.EVEN3, Method.EVEN4, Method.DOPRI5)
    errors, estimates = zip(*map(of_a_kink, methods), strict=True)
    assert errors == pytest.approx([0.0167, 0.0086, 0.0023, 0.0084], abs=6e-5)
    seen = [estimate / error for estimate, error in zip(estimates, errors, strict=True)]
    assert seen == pytest.approx([1.41, 2.68, 2.73, 1 / 13.4], rel=0.01)


def test_even_methods_err_less_on_a_net_with_relus_at_equal_evaluations():
    torch.manual_seed(0)
    f, y0 = ConvDynamics(8, norm=Norm.GROUP, activation=Activation.RELU, t1=1.0).double(), torch.randn(8, 8, 4, 4).double()

    def error(method):
        steps = 30 // tableau(method).solution_stages
        record = StepRecord(torch.full((steps, len(y0)), 1 / steps, dtype=torch.float64))
        return float((solve(f, y0, 0.0, 1.0, Solver(method), replay=record).y1 - exact).norm())

    with torch.no_grad():
        exact = solve(f, y0, 0.0, 1.0, Solver(rtol=1e-6, atol=1e-6, max_steps=10_000)).y1
        bosh3, even3, even4, dopri5 = map(error, (Method.BOSH3, Method.EVEN3, Method.EVEN4, Method.DOPRI5))
    assert even3 < 0.8 * bosh3
    assert even4 < 0.4 * dopri5


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
