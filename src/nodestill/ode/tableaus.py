"""Butcher tableaus with their sources, as exact fractions so that the tests can check the order conditions exactly.

An explicit Runge-Kutta step of size h is k_i = f(t + c_i h, y + h sum_j a_ij k_j), y_next = y + h sum_i b_i k_i, and its
error estimate is h sum_i e_i k_i with e = b - b_hat.
"""

from dataclasses import dataclass, replace
from fractions import Fraction as F
from functools import cache

import torch
from torch import Tensor

from nodestill.ode.solver import Method


@dataclass(frozen=True)
class Tableau:
    """Coefficients of an explicit Runge-Kutta method.

    Args:
        order: Order of the solution that is carried on.
        c: Nodes, one per stage.
        a: Row i holds the weights of the stages before i.
        b: Weights of the solution, one per stage.
        error: Weights of the error estimate, one per stage; empty without an embedded method.
        compensating: The stage that undoes the rounding of f's weights (see `rounding`); None where none is fit. Not the first,
            which may belong to two steps. The error estimate gains e_i / b_i of what rounding all weights changes: 0.01 with
            dopri5, 0.02 with tsit5, 0.13 with even4, 0.25 with bosh3 and even3; in an Euler step it would be all of it.
    """

    order: int
    c: tuple[F, ...]
    a: tuple[tuple[F, ...], ...]
    b: tuple[F, ...]
    error: tuple[F, ...] = ()
    compensating: int | None = None

    @property
    def stages(self) -> int:
        """Number of stages, those that only serve the error estimate included."""
        return len(self.c)

    @property
    def reuses_last(self) -> bool:
        """Whether the last stage is the first of the next step (first same as last)."""
        return self.stages > 1 and self.a[-1] == self.b[:-1] and self.b[-1] == 0

    @property
    def solution_stages(self) -> int:
        """Number of stages that the solution needs; a step without error estimate evaluates no more."""
        return self.stages - 1 if self.reuses_last else self.stages

    def share_to_compensate(self, stage: int) -> float | None:
        """Return the weight in the step of a stage that undoes the rounding of f's weights; None for any other stage."""
        return float(self.b[stage]) if stage == self.compensating else None

    @property
    def without_error(self) -> "Tableau":
        """The same method without the stages that only serve the error estimate."""
        n = self.solution_stages
        return replace(self, c=self.c[:n], a=self.a[:n], b=self.b[:n], error=())


def tableau(method: Method) -> Tableau:
    """Return the coefficients of a method."""
    return _TABLEAUS[method]


@cache
def weights(row: tuple[F, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a row of coefficients as a tensor, shape (len(row),); made once, so a step on a GPU copies nothing."""
    return torch.tensor([float(w) for w in row], dtype=dtype, device=device)


def column(tableau: Tableau, stage: int, stages: int) -> tuple[F, ...]:
    """Return the weights with which the stages after `stage`, up to `stages` in all, use it: a_ij for i > j."""
    return tuple(tableau.a[i][stage] for i in range(stage + 1, stages))


# Euler 1768; Butcher, Numerical Methods for Ordinary Differential Equations, 3rd ed. 2016, section 200.
EULER = Tableau(order=1, c=(F(0),), a=((),), b=(F(1),))

# Runge 1895; Butcher 2016, section 203.
MIDPOINT = Tableau(order=2, c=(F(0), F(1, 2)), a=((), (F(1, 2),)), b=(F(0), F(1)))

# Kutta 1901; Butcher 2016, section 235.
RK4 = Tableau(
    order=4,
    c=(F(0), F(1, 2), F(1, 2), F(1)),
    a=((), (F(1, 2),), (F(0), F(1, 2)), (F(0), F(0), F(1))),
    b=(F(1, 6), F(1, 3), F(1, 3), F(1, 6)),
    compensating=3,
)

# Dormand and Prince 1980, "A family of embedded Runge-Kutta formulae", J. Comp. Appl. Math. 6(1), table 2: RK5(4)7M.
_DOPRI5_B = (F(35, 384), F(0), F(500, 1113), F(125, 192), F(-2187, 6784), F(11, 84), F(0))
_DOPRI5_B_HAT = (
    F(5179, 57600),
    F(0),
    F(7571, 16695),
    F(393, 640),
    F(-92097, 339200),
    F(187, 2100),
    F(1, 40),
)
DOPRI5 = Tableau(
    order=5,
    c=(F(0), F(1, 5), F(3, 10), F(4, 5), F(8, 9), F(1), F(1)),
    a=(
        (),
        (F(1, 5),),
        (F(3, 40), F(9, 40)),
        (F(44, 45), F(-56, 15), F(32, 9)),
        (F(19372, 6561), F(-25360, 2187), F(64448, 6561), F(-212, 729)),
        (F(9017, 3168), F(-355, 33), F(46732, 5247), F(49, 176), F(-5103, 18656)),
        _DOPRI5_B[:6],
    ),
    b=_DOPRI5_B,
    error=tuple(b - b_hat for b, b_hat in zip(_DOPRI5_B, _DOPRI5_B_HAT, strict=True)),
    compensating=2,
)

# Tsitouras 2011, "Runge-Kutta pairs of order 5(4) satisfying only the first column simplifying assumption", Comput. Math.
# Appl. 62(2), table 1. Published in decimals: the order conditions hold to about 1e-15.
_TSIT5_B = (
    F("0.09646076681806523"),
    F("0.01"),
    F("0.4798896504144996"),
    F("1.379008574103742"),
    F("-3.290069515436081"),
    F("2.324710524099774"),
    F(0),
)
TSIT5 = Tableau(
    order=5,
    c=(F(0), F("0.161"), F("0.327"), F("0.9"), F("0.9800255409045097"), F(1), F(1)),
    a=(
        (),
        (F("0.161"),),
        (F("-0.008480655492356989"), F("0.335480655492357")),
        (F("2.8971530571054935"), F("-6.359448489975075"), F("4.3622954328695815")),
        (F("5.325864828439257"), F("-11.748883564062828"), F("7.4955393428898365"), F("-0.09249506636175525")),
        (
            F("5.86145544294642"),
            F("-12.92096931784711"),
            F("8.159367898576159"),
            F("-0.071584973281401"),
            F("-0.028269050394068383"),
        ),
        _TSIT5_B[:6],
    ),
    b=_TSIT5_B,
    error=(
        F("0.001780011052226"),
        F("0.000816434459657"),
        F("-0.007880878010262"),
        F("0.144711007173263"),
        F("-0.582357165452555"),
        F("0.458082105929187"),
        F(-1, 66),
    ),
    compensating=2,
)

# Bogacki and Shampine 1989, "A 3(2) pair of Runge-Kutta formulas", Appl. Math. Lett. 2(4), eq. 5.
BOSH3 = Tableau(
    order=3,
    c=(F(0), F(1, 2), F(3, 4), F(1)),
    a=((), (F(1, 2),), (F(0), F(3, 4)), (F(2, 9), F(1, 3), F(4, 9))),
    b=(F(2, 9), F(1, 3), F(4, 9), F(0)),
    error=(F(2, 9) - F(7, 24), F(1, 3) - F(1, 4), F(4, 9) - F(1, 3), F(-1, 8)),
    compensating=1,
)

# Ours, for f with kinks; we know of no publication. Where the derivative of the slope jumps by delta at the time s h of a
# step of size h, the exact step less the computed one is delta h^2 K(s) with K(s) = (1 - s)^2 / 2 - sum_i b_i max(c_i - s,
# 0), the second Peano kernel of b: exactly if f depends on t alone, else to leading order in h. No order helps there, nodes
# and weights do. K has a root mean square of 0.0086 here and of 0.0167 in bosh3, with as many stages; the least of any third-
# order method of three stages (Butcher 2016, section 233: c_2 and c_3 are free) is 0.0075, near (0.37, 0.82), for which these
# are small fractions. The error estimate has bosh3's terms of order 3, -1/48 both, so that a tolerance asks for steps of the
# same size. All figures: benchmarks/kinks.py.
EVEN3 = Tableau(
    order=3,
    c=(F(0), F(2, 5), F(4, 5), F(1)),
    a=((), (F(2, 5),), (F(-1, 5), F(1)), (F(1, 6), F(5, 12), F(5, 12))),
    b=(F(1, 6), F(5, 12), F(5, 12), F(0)),
    error=(F(1, 6) - F(1, 4), F(5, 12) - F(5, 16), F(5, 12) - F(5, 16), F(-1, 8)),
    compensating=1,
)

# The same with five stages and order 4, on linear f with constant coefficients 5: 0.0023, where no nodes give less than
# 0.0021; dopri5 has 0.0084 with six. What the conditions leave free of a was chosen by trial, on conv nets with ReLUs. The
# estimate of what a kink costs is 2.7 times as large as it, root mean square, with even3 too; bosh3's 1.4 times, dopri5's a
# thirteenth: it hardly sees kinks.
_EVEN4_B = (F(14, 275), F(11, 45), F(6, 25), F(4, 15), F(98, 495), F(0))
EVEN4 = Tableau(
    order=4,
    c=(F(0), F(1, 6), F(5, 12), F(2, 3), F(11, 12), F(1)),
    a=(
        (),
        (F(1, 6),),
        (F(-5, 24), F(5, 8)),
        (F(23, 120), F(-1, 8), F(3, 5)),
        (F(11, 120), F(165, 392), F(-66, 245), F(33, 49)),
        _EVEN4_B[:5],
    ),
    b=_EVEN4_B,
    error=(F(2363, 49000), F(-533, 9800), F(-3013, 49000), F(227, 2450), F(1, 40), F(-1, 20)),
    compensating=4,
)

# Heun 1900 with Euler embedded; Hairer, Norsett, Wanner 1993, section II.4. The evaluation at the end of a step, which the
# next one starts with, is written as a third stage, so that every adaptive method here reuses its last stage.
HEUN_EULER = Tableau(
    order=2,
    c=(F(0), F(1), F(1)),
    a=((), (F(1),), (F(1, 2), F(1, 2))),
    b=(F(1, 2), F(1, 2), F(0)),
    error=(F(-1, 2), F(1, 2), F(0)),
)

_TABLEAUS = {
    Method.DOPRI5: DOPRI5,
    Method.TSIT5: TSIT5,
    Method.BOSH3: BOSH3,
    Method.EVEN3: EVEN3,
    Method.EVEN4: EVEN4,
    Method.HEUN_EULER: HEUN_EULER,
    Method.EULER: EULER,
    Method.MIDPOINT: MIDPOINT,
    Method.RK4: RK4,
    Method.REVERSIBLE: MIDPOINT,
}
