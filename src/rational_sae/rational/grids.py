"""Point sets clustered where a gate bends, and where a rational function could have a narrow peak."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from rational_sae.rational.targets import AnyTarget

FIT_POINTS = 600
"""Geometric points on each side of the kink for fitting. A (9,8) error curve has its peaks at least
.3 apart in log |t − θ|; 600 points put neighbours .007 (gap .02) to .035 (relu) apart."""
CHECK_POINTS = 2003
"""The same for the independent check. Another count, so that the points fall between the fitting ones."""
CLOSEST = 1e-9
"""Closest point to a kink without a gap, in units of the radius; relu (13,12) peaks at 1e-6."""


def clustered_pieces(target: AnyTarget, count: int) -> list[NDArray[np.float64]]:
    """Sorted points on each smooth piece of the set, ends included.

    Each piece gets `count` points in geometric progression away from the nearest kink on either side and
    `count // 2` Chebyshev points, which resolve its far end.
    """
    pieces = []
    for low, high in target.domain:
        cuts = [low, *(kink for kink in target.kinks if low < kink < high), high]
        pieces += [_piece(a, b, target, count) for a, b in pairwise(cuts)]
    return pieces


def _piece(low: float, high: float, target: AnyTarget, count: int) -> NDArray[np.float64]:
    chebyshev = (low + high) / 2 + (high - low) / 2 * np.cos(np.linspace(0, np.pi, count // 2))
    parts = [chebyshev, [low, high]]
    left = [kink for kink in target.kinks if kink <= low]
    right = [kink for kink in target.kinks if kink >= high]
    for kink, side in [(k, 1.0) for k in left[-1:]] + [(k, -1.0) for k in right[:1]]:
        distances = np.abs(np.array([low, high]) - kink)
        closest = max(distances.min(), CLOSEST * target.radius)
        parts.append(kink + side * np.geomspace(closest, distances.max(), count))
    return np.unique(np.clip(np.concatenate(parts), low, high))


def clustered_grid(target: AnyTarget, count: int = FIT_POINTS) -> NDArray[np.float64]:
    """All of `clustered_pieces` as one sorted array [N]."""
    return np.unique(np.concatenate(clustered_pieces(target, count)))


def gap_points(target: AnyTarget, count: int = 41) -> NDArray[np.float64]:
    """Points strictly inside every gap, where only Q > 0 is asked for; none without a gap."""
    inside = [np.linspace(a[1], b[0], count + 2)[1:-1] for a, b in pairwise(target.domain)]
    return np.concatenate([np.empty(0), *inside])


def near_poles(poles: Iterable[complex], count: int = 41) -> NDArray[np.float64]:
    """Real points around each pole x + iy, spread like y·tan: no peak is too narrow to be seen."""
    angles = np.linspace(-1.5, 1.5, count)
    around = [pole.real + abs(pole.imag) * np.tan(angles) for pole in poles]
    return np.concatenate([np.empty(0), *around])
