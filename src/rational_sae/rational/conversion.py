"""Conversions between forms. Each is checked on real points and refuses rather than err silently."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.polynomial import polynomial
from numpy.typing import ArrayLike, NDArray

from rational_sae.errors import FitError
from rational_sae.rational import poles
from rational_sae.rational.forms import PartialFractions, SafePade
from rational_sae.rational.grids import near_poles

Array = NDArray[np.float64]
Function = Callable[[Array], Array]
UNIT = (-1.0, 1.0)

TOLERANCE = 1e-7
"""Largest conversion error accepted, relative to max |r|. Minimax errors are 1e-5 and more; expanding a
(9,8) with δ = .01 in powers of t costs up to 1e-10."""


def sample_points(roots: NDArray[np.complex128], interval: tuple[float, float]) -> Array:
    """Sorted real points of the interval, Chebyshev and around every pole, for fitting and checking."""
    middle, half = (interval[0] + interval[1]) / 2, (interval[1] - interval[0]) / 2
    even = middle + half * np.cos(np.linspace(0, np.pi, 201))
    return np.unique(np.clip(np.concatenate([even, near_poles(roots)]), *interval))


def to_rational(
    r: PartialFractions, interval: tuple[float, float] = UNIT, tolerance: float = TOLERANCE
) -> tuple[Array, Array]:
    """(P [2K + 2], Q [2K + 1]), ascending powers of t, scaled so that max Q = 1 on the interval."""
    numerator, denominator = _expand(r, 0.0)
    largest = poles.extremes(r.roots, interval)[1]
    numerator, denominator = numerator / largest, denominator / largest
    _check(r, lambda t: _ratio(numerator, denominator, t), sample_points(r.roots, interval), tolerance)
    return numerator, denominator


def from_rational(
    numerator: ArrayLike,
    denominator: ArrayLike,
    interval: tuple[float, float] = UNIT,
    tolerance: float = TOLERANCE,
) -> PartialFractions:
    """P/Q given in ascending powers of t, as partial fractions: poles by roots, the rest by least squares.

    Refused: a real pole, an odd denominator, a degree above deg Q + 1, or an error above `tolerance`
    times max |r| on the interval.
    """
    numerator = _trimmed(numerator, "numerator")
    denominator = _trimmed(denominator, "denominator")
    if len(numerator) > len(denominator) + 1:
        cause = f"type ({len(numerator) - 1},{len(denominator) - 1}) grows faster than a straight line"
        raise FitError(cause, "use a type (p, q) with p <= q + 1")
    roots = _polished_roots(denominator)
    t = sample_points(roots, interval)
    result = from_poles(upper_poles(roots), t, _ratio(numerator, denominator, t))
    check_t = (t[1:] + t[:-1]) / 2
    _check(lambda t: _ratio(numerator, denominator, t), result, check_t, tolerance)
    return result


def upper_poles(roots: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """One of each conjugate pair, [K]; a root on the real line is refused."""
    upper = roots[roots.imag > 0]
    if 2 * len(upper) != len(roots):
        raise FitError("the denominator has a pole on the real line", "fit a lower type or a wider gap")
    return upper[np.argsort(upper.real)]


def from_poles(upper: NDArray[np.complex128], t: Array, values: Array) -> PartialFractions:
    """Partial fractions with poles `upper` [K] closest to `values` at `t` [N] in least squares."""
    x, y = upper.real, upper.imag
    u = t[:, None] - x
    squared = u * u + y * y
    basis = np.column_stack([np.ones_like(t), t, u / squared, y / squared])
    norms = np.linalg.norm(basis, axis=0)
    weights = np.linalg.lstsq(basis / norms, values, rcond=None)[0] / norms
    alpha, beta = np.split(weights[2:], 2)
    return PartialFractions(weights[0], weights[1], alpha, beta, x, np.log(y))


def to_safe_pade(r: PartialFractions, interval: tuple[float, float] = UNIT, tolerance: float = TOLERANCE) -> SafePade:
    """Centred safe-Padé about c = argmin Q on the interval; refused where it is not the same function."""
    centre = poles.lowest_point(r.roots, interval)
    numerator, denominator = _expand(r, centre)
    result = SafePade(numerator / denominator[0], denominator[1:] / denominator[0], centre)
    _check(r, result, sample_points(r.roots, interval), tolerance)
    return result


def from_safe_pade(s: SafePade, interval: tuple[float, float] = UNIT, tolerance: float = TOLERANCE) -> PartialFractions:
    """Partial fractions of a safe-Padé whose inner sum is nowhere negative; refused otherwise."""
    shifted = (interval[0] - s.c, interval[1] - s.c)
    result = from_rational(s.a, np.concatenate([[1.0], s.b]), shifted, tolerance).shifted(s.c)
    _check(s, result, sample_points(result.roots, interval), tolerance)
    return result


def _expand(r: PartialFractions, centre: float) -> tuple[Array, Array]:
    """(P, monic Q) in ascending powers of t − centre."""
    x = r.x - centre
    quadratics = [np.array([a * a + y * y, -2 * a, 1.0]) for a, y in zip(x, r.y, strict=True)]
    line = np.array([r.e0 + r.e1 * centre, r.e1])
    denominator = _product(quadratics)
    numerator = polynomial.polymul(line, denominator)
    for k, (a, y) in enumerate(zip(x, r.y, strict=True)):
        residue = np.array([r.beta[k] * y - r.alpha[k] * a, r.alpha[k]])
        others = _product(quadratics[:k] + quadratics[k + 1 :])
        numerator = polynomial.polyadd(numerator, polynomial.polymul(residue, others))
    padded = np.zeros(len(denominator) + 1)  # polymul drops trailing zeros: e1 = 0 keeps its place
    padded[: len(numerator)] = numerator
    return padded, denominator


def _product(factors: list[Array]) -> Array:
    result = np.ones(1)
    for factor in factors:
        result = np.convolve(result, factor)
    return result


def _ratio(numerator: Array, denominator: Array, t: Array) -> Array:
    return polynomial.polyval(t, numerator) / polynomial.polyval(t, denominator)


def _trimmed(coefficients: ArrayLike, name: str) -> Array:
    values = np.trim_zeros(np.atleast_1d(np.asarray(coefficients, dtype=np.float64)), "b")
    if values.ndim != 1 or not np.isfinite(values).all():
        raise FitError(f"{name} must be a list of finite coefficients", "fit again")
    if len(values) == 0:
        if name == "denominator":
            raise FitError("the denominator is zero", "give a denominator with a non-zero coefficient")
        return np.zeros(1)
    return values


def _polished_roots(coefficients: Array) -> NDArray[np.complex128]:
    """Roots by eigenvalues, then Newton's method where it does not move them far."""
    roots = polynomial.polyroots(coefficients).astype(np.complex128)
    slope = polynomial.polyder(coefficients)
    for _ in range(3):
        with np.errstate(divide="ignore", invalid="ignore"):
            steps = polynomial.polyval(roots, coefficients) / polynomial.polyval(roots, slope)
        sane = np.abs(steps) < 1e-3 * np.abs(roots.imag)
        roots = np.where(sane, roots - np.where(sane, steps, 0), roots)
    return roots


def _check(exact: Function, converted: Function, t: Array, tolerance: float) -> None:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        wanted, found = exact(t), converted(t)
        error = np.max(np.abs(wanted - found)) / max(float(np.max(np.abs(wanted))), np.finfo(float).tiny)
    if not error <= tolerance:
        cause = f"the conversion is off by {error:.1e} of max |r|, more than {tolerance:.0e}"
        raise FitError(cause, "keep the partial fractions, or fit a lower type")
