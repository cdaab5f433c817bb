"""Remez exchange with Newton's method on partial fractions: the last digits of a nearly optimal fit.

Unknowns are the 2q + 2 coefficients and the levelled error E; equations w(t_i)(r(t_i) − f(t_i)) = ±E at the
p + q + 2 = 2q + 3 peaks of the current error. It converges quadratically near the optimum, needs no grid,
and the result's digits are those of the stored form itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rational_sae.rational.certificate import Certificate, certify
from rational_sae.rational.forms import PartialFractions
from rational_sae.rational.grids import near_poles
from rational_sae.rational.targets import AnyTarget

Array = NDArray[np.float64]

LEVEL = 1 - 1e-10
"""Peak ratio at which to stop; rounding leaves 1e-12 or so."""
NEARLY_LEVEL = 1 - 1e-6
"""Peak ratio from which on a failed step is not retried at half its length."""


def certified(r: PartialFractions, target: AnyTarget) -> Certificate:
    """The certificate of partial fractions, with points around every pole."""
    return certify(r, target, near_poles(r.roots))


def polish(r: PartialFractions, target: AnyTarget, max_steps: int = 8) -> tuple[PartialFractions, Certificate]:
    """The fit with its error levelled, or the fit itself where no step helps."""
    best = certified(r, target)
    for _ in range(max_steps):
        improved = _improved(r, target, best) if best.peak_ratio < LEVEL else None
        if improved is None:
            break
        r, best = improved
    return r, best


def _improved(r: PartialFractions, target: AnyTarget, best: Certificate) -> tuple[PartialFractions, Certificate] | None:
    """A Newton step, shortened until it lowers the error and keeps the alternation; None if none does."""
    needed = sum(r.type) + 2
    if best.alternations < needed:
        return None
    for length in (1.0, 0.5, 0.25):
        points, peaks = _reference(best, needed)
        candidate = _newton(r, points, peaks, target.weight(points), length)
        if candidate is None:
            return None
        found = certified(candidate, target)
        if found.error < best.error and found.alternations >= needed:
            return candidate, found
        if best.peak_ratio > NEARLY_LEVEL:
            return None  # what is left is rounding
    return None


def _reference(certificate: Certificate, count: int) -> tuple[Array, Array]:
    """`count` neighbouring peaks: where there are more, the smaller end goes first."""
    points, peaks = certificate.points, certificate.peaks
    while len(points) > count:
        keep = slice(1, None) if abs(peaks[0]) < abs(peaks[-1]) else slice(None, -1)
        points, peaks = points[keep], peaks[keep]
    return points, peaks


def _newton(r: PartialFractions, t: Array, peaks: Array, weight: Array, length: float) -> PartialFractions | None:
    """A share `length` of Newton's step on the levelled equations; None where it is not finite."""
    signs = np.sign(peaks)
    columns = np.column_stack([weight[:, None] * jacobian(r, t), -signs])
    level = np.mean(np.abs(peaks))
    norms = np.linalg.norm(columns, axis=0)
    norms[norms == 0] = 1.0
    step = np.linalg.lstsq(columns / norms, signs * level - peaks, rcond=None)[0] / norms
    if not np.isfinite(step).all():
        return None
    step = length * step
    alpha, beta, x, eta = np.split(step[2:-1], 4)
    return PartialFractions(
        e0=r.e0 + step[0],
        e1=r.e1 + step[1],
        alpha=r.alpha + alpha,
        beta=r.beta + beta,
        x=r.x + x,
        eta=r.eta + np.clip(eta, -1.0, 1.0),
    )


def jacobian(r: PartialFractions, t: Array) -> Array:
    """[N, 4K + 2], derivatives by e₀, e₁, α, β, x, η."""
    u, y = t[:, None] - r.x, r.y
    squared = u * u + y * y
    term = (r.alpha * u + r.beta * y) / squared
    by_x = (2 * u * term - r.alpha) / squared
    by_eta = (r.beta * y - 2 * y * y * term) / squared
    return np.column_stack([np.ones_like(t), t, u / squared, y / squared, by_x, by_eta])
