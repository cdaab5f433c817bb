"""What a fit is worth: its error on an independent grid and the alternation that proves it the best.

A fit of type (p, q) whose error takes its largest value p + q + 2 times with alternating sign is the
best of its type (Chebyshev); if the peaks differ, the best error is at least the smallest peak (de la
Vallée-Poussin), so `peak_ratio` bounds from below the share of the error that no fit can remove.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rational_sae.rational.grids import CHECK_POINTS, clustered_pieces
from rational_sae.rational.targets import AnyTarget

Array = NDArray[np.float64]
Function = Callable[[Array], Array]

COUNTED = 0.9
"""Peaks of at least this share of the error count as alternations (a heuristic; certified fits have
.9996 and more, so nothing is near the limit)."""


@dataclass(frozen=True)
class Certificate:
    """The error curve r − f in numbers."""

    error: float
    """Sup norm on the set, weighted where the target has a weight."""
    points: Array
    """[alternations], where the error peaks with alternating sign, ascending."""
    peaks: Array
    """[alternations], the weighted r − f there."""

    @property
    def alternations(self) -> int:
        """How many peaks alternate."""
        return len(self.points)

    @property
    def peak_ratio(self) -> float:
        """Smallest over largest |peak|; 1 for a fit that is exact, 0 for one with a pole on the set."""
        if self.error == 0:
            return 1.0
        if not np.isfinite(self.error):
            return 0.0
        return float(np.min(np.abs(self.peaks))) / self.error


def certify(r: Function, target: AnyTarget, extra: Array | None = None) -> Certificate:
    """Measure r against the target on a fine clustered grid, each peak then refined between its neighbours.

    `extra` adds points that the grid should not miss, such as those around narrow poles.
    """
    points, peaks = [], []
    for piece in clustered_pieces(target, CHECK_POINTS):
        t = piece
        if extra is not None:
            inside = extra[(extra > piece[0]) & (extra < piece[-1])]
            t = np.unique(np.concatenate([piece, inside]))
        found_t, found_e = _refined_peaks(r, target, t)
        points.append(found_t)
        peaks.append(found_e)
    return _alternation(np.concatenate(points), np.concatenate(peaks))


def _refined_peaks(r: Function, target: AnyTarget, t: Array) -> tuple[Array, Array]:
    """Local maxima of |r − f| on one piece: positions and signed values."""

    def gap(t: Array) -> Array:
        error = target.weight(t) * (r(t) - target(t))
        return np.where(np.isnan(error), np.inf, error)

    size = np.abs(gap(t))
    padded = np.concatenate([[-1.0], size, [-1.0]])
    index = np.flatnonzero((padded[1:-1] >= padded[:-2]) & (padded[1:-1] >= padded[2:]))
    best_t, best_e = t[index], gap(t[index])
    low, high = t[np.maximum(index - 1, 0)], t[np.minimum(index + 1, len(t) - 1)]
    for _ in range(3):  # each round narrows the bracket tenfold; the peak's value is then exact to 1e-9
        between = np.linspace(low, high, 21, axis=1)
        error = gap(between)
        top = np.argmax(np.abs(error), axis=1)
        rows = np.arange(len(top))
        better = np.abs(error[rows, top]) > np.abs(best_e)
        best_t = np.where(better, between[rows, top], best_t)
        best_e = np.where(better, error[rows, top], best_e)
        low, high = between[rows, np.maximum(top - 1, 0)], between[rows, np.minimum(top + 1, 20)]
    return best_t, best_e


def _alternation(points: Array, peaks: Array) -> Certificate:
    """Keep the large peaks, and of neighbours with one sign the largest."""
    error = float(np.max(np.abs(peaks)))
    large = np.abs(peaks) >= COUNTED * error
    order = np.argsort(points[large], kind="stable")
    points, peaks = points[large][order], peaks[large][order]
    run = np.cumsum(np.concatenate([[0], np.sign(peaks[1:]) != np.sign(peaks[:-1])]))
    kept = [np.flatnonzero(run == k) for k in range(run[-1] + 1)]
    chosen = np.array([group[np.argmax(np.abs(peaks[group]))] for group in kept])
    return Certificate(error, points[chosen], peaks[chosen])
