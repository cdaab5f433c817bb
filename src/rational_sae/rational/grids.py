"""Point sets clustered where a gate bends, and where a rational function could have a narrow peak."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from rational_sae.rational.targets import Target

FIT_POINTS = 600
"""Geometric points on each side of the kink for fitting. A (9,8) error curve has its peaks at least
.3 apart in log |t − θ|; 600 points put neighbours .007 (gap .02) to .035 (relu) apart."""
CHECK_POINTS = 2003
"""The same for the independent check. Another count, so that the points fall between the fitting ones."""
CLOSEST = 1e-9
"""Closest point to a kink without a gap, in units of the radius; relu (13,12) peaks at 1e-6."""


def clustered_pieces(target: Target, count: int) -> list[NDArray[np.float64]]:
    """Sorted points on each smooth piece of the set, ends included.

    Each piece gets `count` points in geometric progression away from the kink and `count // 2`
    Chebyshev points, which resolve its far end.
    """
    pieces = []
    for low, high in target.domain:
        inside = low < target.kink < high
        bounds = [(low, target.kink), (target.kink, high)] if inside else [(low, high)]
        pieces += [_piece(a, b, target, count) for a, b in bounds]
    return pieces


def _piece(low: float, high: float, target: Target, count: int) -> NDArray[np.float64]:
    distances = np.abs(np.array([low, high]) - target.kink)
    closest = max(distances.min(), CLOSEST * target.radius)
    side = 1.0 if low + high > 2 * target.kink else -1.0
    geometric = target.kink + side * np.geomspace(closest, distances.max(), count)
    chebyshev = (low + high) / 2 + (high - low) / 2 * np.cos(np.linspace(0, np.pi, count // 2))
    return np.unique(np.clip(np.concatenate([geometric, chebyshev, [low, high]]), low, high))


def clustered_grid(target: Target, count: int = FIT_POINTS) -> NDArray[np.float64]:
    """All of `clustered_pieces` as one sorted array [N]."""
    return np.unique(np.concatenate(clustered_pieces(target, count)))


def gap_points(target: Target, count: int = 41) -> NDArray[np.float64]:
    """Points strictly inside the gap, where only Q > 0 is asked for; none without a gap."""
    if target.gap == 0:
        return np.empty(0)
    return target.threshold + target.gap * np.linspace(-1, 1, count + 2)[1:-1]


def near_poles(poles: Iterable[complex], count: int = 41) -> NDArray[np.float64]:
    """Real points around each pole x + iy, spread like y·tan: no peak is too narrow to be seen."""
    angles = np.linspace(-1.5, 1.5, count)
    around = [pole.real + abs(pole.imag) * np.tan(angles) for pole in poles]
    return np.concatenate([np.empty(0), *around])
