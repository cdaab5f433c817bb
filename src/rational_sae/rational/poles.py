"""A denominator through its roots: values, extremes on an interval, coefficients."""

from __future__ import annotations

import numpy as np
from numpy.polynomial import polynomial
from numpy.typing import ArrayLike, NDArray


def monic(roots: NDArray[np.complex128], t: ArrayLike) -> NDArray[np.float64]:
    """Π (t − root) at real t (any shape), for roots that come in conjugate pairs or are real."""
    t = np.asarray(t, dtype=np.float64)
    factors = t[..., None] - roots
    return np.real(np.prod(factors, axis=-1))


def critical_points(roots: NDArray[np.complex128]) -> NDArray[np.float64]:
    """Real points where Π (t − root) may be extreme: the real zeros of its derivative, polished.

    The zeros of the expanded derivative lose digits in a narrow valley, so each root's own real part is
    a second starting point, and both are polished by Newton's method on the logarithmic derivative.
    """
    if len(roots) < 2:
        return np.empty(0)
    centre, spread = _centre_and_spread(roots)
    coefficients = polynomial.polyfromroots((roots - centre) / spread).real
    expanded = polynomial.polyroots(polynomial.polyder(coefficients)) * spread + centre
    starts = np.concatenate([expanded.real, roots.real])
    points = starts.copy()
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for _ in range(8):
            inverse = 1 / (points[:, None] - roots)
            points = points + np.real(inverse.sum(axis=1)) / np.real((inverse**2).sum(axis=1))
    return np.concatenate([starts, points[np.isfinite(points)]])


def extremes(roots: NDArray[np.complex128], interval: tuple[float, float]) -> tuple[float, float]:
    """(min, max) of Π (t − root) over a closed interval, its sign chosen so that the largest |value| is
    positive: the minimum is positive exactly when no root lies on the interval."""
    values = monic(roots, _candidates(roots, interval))
    largest = values[np.argmax(np.abs(values))]
    values = values * np.sign(largest)
    return float(values.min()), float(values.max())


def lowest_point(roots: NDArray[np.complex128], interval: tuple[float, float]) -> float:
    """Where Π (t − root) is least on a closed interval."""
    candidates = _candidates(roots, interval)
    return float(candidates[np.argmin(monic(roots, candidates))])


def highest_point(roots: NDArray[np.complex128], interval: tuple[float, float]) -> float:
    """Where |Π (t − root)| is largest on a closed interval."""
    candidates = _candidates(roots, interval)
    return float(candidates[np.argmax(np.abs(monic(roots, candidates)))])


def _candidates(roots: NDArray[np.complex128], interval: tuple[float, float]) -> NDArray[np.float64]:
    """The interval's ends and the critical points between them."""
    points = critical_points(roots)
    inside = points[(points > interval[0]) & (points < interval[1])]
    return np.concatenate([np.asarray(interval), inside])


def _centre_and_spread(roots: NDArray[np.complex128]) -> tuple[float, float]:
    centre = float(np.mean(roots.real))
    return centre, float(np.max(np.abs(roots - centre))) or 1.0
