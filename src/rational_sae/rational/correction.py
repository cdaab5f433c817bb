"""Differential correction: the globally convergent minimax method, one linear programme a step.

Given an approximant with denominator Q_k > 0 and grid error Δ, the next one minimises
max (w |f Q − P| − Δ Q) / Q_k over bounded Q. It never gets worse and converges quadratically from any
positive start (Barrodale, Powell and Roberts, 1972). Two things make it work in float64:
a basis orthonormal for the weight 1/Q_k², rebuilt each step by Arnoldi (a QR factorisation that is never
given ill-conditioned columns), and constraints on few points, exchanged until the whole grid holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from scipy.optimize import linprog

Array = NDArray[np.float64]

LP_TOLERANCES = (1e-10, 1e-9, 1e-8)
"""HiGHS feasibility on rows scaled by the error, tried in turn. HiGHS now and then fails to reach the
first near the optimum of a (13,12); its own default of 1e-7 stalls."""
CONVERGED = 1e-7
"""Stop when a step promises less than this relative gain. Grid and truth differ by 1e-5 anyway."""
PROVED = 1e-5
"""A step that promises no more than this proves its start the best on the grid, to that precision. Larger
than `CONVERGED`, because a degenerate optimum leaves programmes at rounding level."""
FIRST_POINTS = 60
"""Points of the first active set; three times the unknowns of a (9,8)."""
KEPT_SLACK = 0.3
"""Points within this share of Δ of being active stay for the next step (a heuristic)."""
MAX_EXCHANGES = 20
"""Programmes per step before giving up; seven is the most seen."""
VIOLATION = 1e-3
"""Share of a step's gain by which a point outside the active set may break its constraint."""


@dataclass(frozen=True)
class Corrected:
    """What differential correction found on its grid."""

    numerator: Array
    """[p + 1], Chebyshev coefficients on [−1, 1]."""
    denominator: Array
    """[q + 1], the same; positive at every grid point."""
    roots: NDArray[np.complex128]
    """Roots of the denominator; fewer than q where its leading coefficient vanishes."""
    values: Array
    """[N], P/Q at the grid points."""
    error: float
    """Largest error on the grid."""
    converged: bool
    """True when the last linear programme proves that no approximant on the grid is better."""


@dataclass(frozen=True)
class _Basis:
    """Polynomials φ_0 … φ_n with φ_j / Q orthonormal over the grid's mean, and their recurrence."""

    values: Array
    """[N, n + 1], φ_j / Q at the grid points."""
    recurrence: Array
    """[n + 1, n], t φ_j = Σ_i recurrence[i, j] φ_i."""
    first: float
    """The constant φ_0."""

    @classmethod
    def build(cls, t: Array, denominator: Array, degree: int) -> _Basis:
        scale = np.sqrt(len(t))
        columns = np.empty((len(t), degree + 1))
        recurrence = np.zeros((degree + 1, degree))
        norm = np.linalg.norm(1 / denominator) / scale
        columns[:, 0] = 1 / (denominator * norm)
        for j in range(degree):
            column = t * columns[:, j]
            for _ in range(2):  # twice is enough (Kahan): orthonormal to rounding
                along = columns[:, : j + 1].T @ column / len(t)
                column = column - columns[:, : j + 1] @ along
                recurrence[: j + 1, j] += along
            recurrence[j + 1, j] = np.linalg.norm(column) / scale
            columns[:, j + 1] = column / recurrence[j + 1, j]
        return cls(columns, recurrence, 1 / norm)

    def ones(self, degree: int) -> Array:
        """[degree + 1], the weights of Q itself: Q / Q = 1."""
        return self.values[:, : degree + 1].mean(axis=0)

    def ratio(self, weights: tuple[Array, Array], f: Array, w: Array) -> Corrected:
        """The rational function with these numerator and denominator weights, against f [n <= N] weighted by w."""
        above, below = weights
        top = self.values[: len(f), : len(above)] @ above
        values = np.asarray(top / (self.values[: len(f), : len(below)] @ below), dtype=np.float64)
        return Corrected(
            numerator=self.chebyshev(above),
            denominator=self.chebyshev(below),
            roots=self.roots(below),
            values=values,
            error=float((w * np.abs(values - f)).max()),
            converged=False,
        )

    def chebyshev(self, weights: Array) -> Array:
        """Chebyshev coefficients of Σ weights_j φ_j."""
        degree = len(weights) - 1
        nodes = np.asarray(chebyshev.chebpts1(degree + 1))
        columns = np.empty((degree + 1, degree + 1))
        columns[:, 0] = self.first
        for j in range(degree):
            known = columns[:, : j + 1] @ self.recurrence[: j + 1, j]
            columns[:, j + 1] = (nodes * columns[:, j] - known) / self.recurrence[j + 1, j]
        return np.asarray(np.linalg.solve(chebyshev.chebvander(nodes, degree), columns @ weights), dtype=np.float64)

    def roots(self, weights: Array) -> NDArray[np.complex128]:
        """Roots of Σ weights_j φ_j, as eigenvalues of the recurrence (a comrade matrix)."""
        size = np.abs(weights).max()
        degree = len(weights) - 1
        while degree > 0 and abs(weights[degree]) < 1e-11 * size:
            degree -= 1
        if degree == 0:
            return np.empty(0, dtype=np.complex128)
        comrade = self.recurrence[:degree, :degree].copy()
        comrade[:, -1] -= self.recurrence[degree, degree - 1] * weights[:degree] / weights[degree]
        return np.linalg.eigvals(comrade).astype(np.complex128)


@dataclass(frozen=True)
class _Problem:
    """A grid, its values, and the type asked for."""

    t: Array
    """[N] points of the set, then [M] points of the gap."""
    f: Array
    """[N] values."""
    w: Array
    """[N] weights of the error."""
    p: int
    q: int

    def residual(self, basis: _Basis, weights: tuple[Array, Array], error: float) -> Array:
        """(w |f Q / Δ − P| − Q) / Q_k, P in units of Δ, at the set's points and −Q / Q_k in the gap: [N + M]."""
        numerator = basis.values[:, : self.p + 1] @ weights[0]
        denominator = basis.values[:, : self.q + 1] @ weights[1]
        result = -denominator
        n = len(self.f)
        result[:n] += self.w * np.abs(self.f / error * denominator[:n] - numerator[:n])
        return result

    def programme(self, basis: _Basis, active: NDArray[np.intp], error: float) -> tuple[Array, Array, float] | None:
        """Minimise the residual over active points: numerator and denominator weights, the minimum."""
        n = len(self.f)
        on_set, in_gap = active[active < n], active[active >= n]
        w = self.w[on_set][:, None]
        top = w * basis.values[on_set, : self.p + 1]
        bottom = basis.values[on_set, : self.q + 1]
        f = w * (self.f[on_set] / error)[:, None]
        level = -np.ones((len(on_set), 1))
        gap_rows = [np.zeros((len(in_gap), self.p + 1)), -basis.values[in_gap, : self.q + 1]]
        rows = np.vstack(
            [
                np.hstack([-top, (f - 1) * bottom, level]),
                np.hstack([top, -(f + 1) * bottom, level]),
                np.hstack([*gap_rows, -np.ones((len(in_gap), 1))]),
            ]
        )
        free, bounded = (None, None), (-1, 1)
        for tolerance in LP_TOLERANCES:
            solution = linprog(
                c=np.eye(1, self.p + self.q + 3, self.p + self.q + 2)[0],
                A_ub=rows,
                b_ub=np.zeros(len(rows)),
                bounds=[free] * (self.p + 1) + [bounded] * (self.q + 1) + [free],
                method="highs-ds",
                options={"primal_feasibility_tolerance": tolerance, "dual_feasibility_tolerance": tolerance},
            )
            if solution.x is not None:
                return solution.x[: self.p + 1], solution.x[self.p + 1 : -1], float(solution.x[-1])
        return None

    def solve(
        self, basis: _Basis, active: NDArray[np.intp], error: float
    ) -> tuple[tuple[Array, Array], float, Array] | None:
        """The programme on the whole grid, by exchange: weights, minimum and residual [N + M]."""
        for _ in range(MAX_EXCHANGES):
            found = self.programme(basis, active, error)
            if found is None:
                return None
            weights, minimum = found[:2], found[2]
            residual = self.residual(basis, weights, error)
            broken = residual > minimum + max(10 * LP_TOLERANCES[0], VIOLATION * abs(minimum))
            new = np.setdiff1d(np.flatnonzero(broken & _local_maxima(residual)), active)
            if len(new) == 0:
                return weights, minimum, residual
            active = np.union1d(active, new)
        return None


def correct(
    t: Array,
    f: Array,
    gap: Array,
    type: tuple[int, int],  # noqa: A002
    start: Callable[[Array], Array],
    max_steps: int = 60,
    weight: Array | None = None,
) -> Corrected:
    """Best P/Q of the given type on the points t [N] with values f [N] and weights [N] of the error (default 1),
    Q > 0 there and at `gap` [M].

    `start(t)` is a positive first denominator of degree at most q.
    """
    (p, q), n = type, len(f)
    w = np.ones(n) if weight is None else weight
    problem = _Problem(np.concatenate([t, gap]), f, w, p, q)
    denominator = start(problem.t)
    basis = _Basis.build(problem.t, denominator, max(type))
    linear = np.linalg.lstsq(w[:, None] * basis.values[:n, : p + 1], w * f, rcond=None)[0]
    best = basis.ratio((np.asarray(linear, dtype=np.float64), basis.ones(q)), f, w)
    active = np.unique(np.linspace(0, n - 1, FIRST_POINTS).astype(np.intp))
    for _ in range(max_steps):
        if best.error == 0:
            return replace(best, converged=True)
        solved = problem.solve(basis, active, best.error)
        if solved is None:
            return best
        (top, bottom), minimum, residual = solved
        ratio = basis.values[:, : q + 1] @ bottom
        better = None if ratio.min() <= 0 else basis.ratio((best.error * top, bottom), f, w)
        if better is None or better.error >= best.error:
            return replace(best, converged=minimum > -PROVED)
        if minimum > -CONVERGED or better.error > best.error * (1 - CONVERGED):
            return replace(better, converged=minimum > -PROVED)
        best = better
        denominator = denominator * ratio
        denominator /= denominator.max()
        basis = _Basis.build(problem.t, denominator, max(type))
        active = np.flatnonzero(residual > minimum - KEPT_SLACK)
    return best


def _local_maxima(values: Array) -> NDArray[np.bool_]:
    padded = np.concatenate([[-np.inf], values, [-np.inf]])
    return (padded[1:-1] >= padded[:-2]) & (padded[1:-1] >= padded[2:])
