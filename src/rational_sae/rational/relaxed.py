"""The paper's relaxed Remez exchange, as far as its text goes (arXiv 2606.14990; no code was published).

What the paper fixes: a safe-Padé denominator 1 + |Σ_{j≥1} b_j t^j| about 0, a dense grid of 4001 points on [−1, 1], and
a relaxed exchange. Our reading of "relaxed": each round solves the levelled equations once, linearised at the last
level and denominator instead of to convergence, and moves the reference only part of the way to the new peaks. The best
grid error met on the way is kept. The form cannot write a JumpReLU's optimum
(docs/fits.md).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.polynomial import chebyshev, polynomial
from numpy.typing import NDArray

from rational_sae.rational.forms import SafePade
from rational_sae.rational.targets import AnyTarget

Array = NDArray[np.float64]

GRID = 4001
"""Points of the dense grid (paper)."""
ROUNDS = 200
"""Exchanges. The grid error stops falling after some tens (a heuristic)."""
RELAXATION = 0.5
"""Share of the way to the new peaks that the reference moves (a heuristic; 1 is the plain exchange)."""


def dense_grid(target: AnyTarget) -> Array:
    """The points of an even grid of GRID points on [−1, 1] that lie in the set, and its ends."""
    t = np.linspace(-1.0, 1.0, GRID)
    parts = [np.unique(np.concatenate([t[(t > low) & (t < high)], [low, high]])) for low, high in target.domain]
    return np.concatenate(parts)


def relaxed_remez(t: Array, f: Array, type: tuple[int, int]) -> SafePade:  # noqa: A002
    """The best safe-Padé met on the way. t, f: [N], the grid and the values."""
    p, q = type
    count = p + q + 2
    place = (len(t) - 1) * (1 - np.cos(np.pi * np.arange(count) / (count - 1))) / 2  # in grid steps, Chebyshev's
    start = np.zeros(p + 1)
    polynomial_start = np.asarray(chebyshev.cheb2poly(chebyshev.chebfit(t, f, p)), dtype=np.float64)
    start[: len(polynomial_start)] = polynomial_start
    best = SafePade(start, np.zeros(q), 0.0)
    lowest = float(np.max(np.abs(best(t) - f)))
    level, inner = lowest, np.zeros(count)
    for _ in range(ROUNDS):
        chosen = np.unique(np.round(place).astype(np.intp))
        if len(chosen) < count:
            break
        solved = _levelled(t[chosen], f[chosen], level, inner, type)
        if solved is None:
            break
        found, level = solved
        error = found(t) - f
        size = float(np.max(np.abs(error)))
        if size < lowest:
            best, lowest = found, size
        place = place + RELAXATION * (_exchanged(error, chosen) - place)
        chosen = np.round(place).astype(np.intp)
        inner = np.asarray(polynomial.polyval(t[chosen], np.concatenate([[0.0], found.b])), dtype=np.float64)
    return best


def _levelled(t: Array, f: Array, level: float, inner: Array, type: tuple[int, int]) -> tuple[SafePade, float] | None:  # noqa: A002
    """P(t_i) − f_i B(t_i) − (−1)^i E Q_old(t_i) = f_i on the reference: a, b and the new level E.

    `inner` is the last B at the reference; Q_old = 1 + |B|. Where the level has one sign throughout, |E| is kept.
    """
    p, q = type
    signs = (-1.0) ** np.arange(len(t))
    powers = polynomial.polyvander(t, max(p, q))
    matrix = np.column_stack([powers[:, : p + 1], -f[:, None] * powers[:, 1 : q + 1], -signs * (1 + np.abs(inner))])
    solution = np.asarray(np.linalg.lstsq(matrix, f, rcond=1e-12)[0], dtype=np.float64)
    if not np.isfinite(solution).all():
        return None
    return SafePade(solution[: p + 1], solution[p + 1 : -1], 0.0), float(solution[-1]) or level


def _exchanged(error: Array, reference: NDArray[np.intp]) -> Array:
    """New reference: the largest error between the zeros around each old point, of that point's own sign."""
    bounds = [0, *((a + b) // 2 for a, b in pairwise(reference)), len(error) - 1]
    places = []
    for low, high, old in zip(bounds[:-1], bounds[1:], reference, strict=True):
        window = error[low : high + 1] * (np.sign(error[old]) or 1.0)
        places.append(low + int(np.argmax(window)))
    return np.maximum.accumulate(np.array(places, dtype=np.float64))
