"""Best rational approximation of a gate in the sup norm, with its certificate.

Two routes: relu, leaky or not, of type (2k + 1, 2k) comes from (t + s(t²)) / 2 with s the best
type-(k, k) approximant of √x on [0, 1]; everything else is differential correction from a ladder of starting
denominators. Type (q + 1, q) fits are then levelled to rounding in partial fractions. Other methods are there to
be measured against: `relaxed_remez`, and the baselines `aaa` and `adam`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import baryrat
import numpy as np
from numpy.polynomial import chebyshev, polynomial
from numpy.typing import ArrayLike, NDArray

from rational_sae.errors import FitError
from rational_sae.rational import baselines, poles, relaxed
from rational_sae.rational.certificate import Certificate, certify
from rational_sae.rational.conversion import from_poles, sample_points, to_rational, upper_poles
from rational_sae.rational.correction import Corrected, correct
from rational_sae.rational.forms import PartialFractions, SafePade
from rational_sae.rational.grids import clustered_grid, gap_points, near_poles
from rational_sae.rational.polish import polish
from rational_sae.rational.result import Fit, conditioning
from rational_sae.rational.targets import WITHOUT_GAP, AnyTarget, FunctionTarget, Target
from rational_sae.rational.targets import target as named_target
from rational_sae.rational.zolotarev import zolotarev_nodes

Array = NDArray[np.float64]
Method = Literal["auto", "relaxed_remez", "aaa", "adam"]

OPTIMAL_RATIO = 0.999
"""Peak ratio above which a fit is called optimal: no fit of its type is better by more than .1 %."""
EXACT = 1e-13
"""Error, relative to the target's size, that is rounding: the target is itself of the type."""
PROVED = ("optimal", "degenerate")
"""Statuses of a fit that is the best of its type."""
PEAK_ROUNDS = 3
"""Refits with the error's true peaks added to the grid, for types that partial fractions cannot hold."""
UNIT = (-1.0, 1.0)
KAPPA_STEP = 8.0
"""Largest factor between the weights of two fits in the continuation in κ (a precaution: docs/fits.md)."""
LARGEST_DEGREE = 24
"""Types above are refused: float64 coefficients in powers of t no longer carry them."""


@dataclass(frozen=True)
class _Candidate:
    """A fit on [−1, 1] with values of magnitude 1, before it is scaled back."""

    certificate: Certificate
    numerator: Array
    denominator: Array
    roots: NDArray[np.complex128]
    fractions: PartialFractions | None
    converged: bool
    start: str
    safe_pade: SafePade | None = None

    def expansion_error(self) -> float:
        """Largest |P/Q − r| on [−1, 1]."""
        exact = self.fractions or self.safe_pade
        if exact is None:
            return 0.0
        t = sample_points(self.roots, UNIT)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = polynomial.polyval(t, self.numerator) / polynomial.polyval(t, self.denominator)
        return float(np.max(np.abs(ratio - exact(t))))

    def proved_ratio(self) -> float:
        """Share of the error that full alternation proves to be necessary.

        A safe-Padé whose inner sum is negative somewhere is no rational function of the type, and its own
        alternation proves nothing: the proof is that of P/Q, where P/Q has no pole.
        """
        ratio, points = self.certificate.peak_ratio, self.certificate.points
        if self.safe_pade is None:
            return ratio
        if poles.extremes(self.roots, UNIT)[0] <= 0:
            return 0.0
        apart = np.max(np.abs(_ratio(self.numerator, self.denominator)(points) - self.safe_pade(points)))
        return ratio - float(apart) / self.certificate.error

    def status(self, type: tuple[int, int]) -> str:  # noqa: A002
        has_pole = self.safe_pade is None and poles.extremes(self.roots, UNIT)[0] <= 0
        if has_pole or not np.isfinite(self.certificate.error):
            return "pole"
        if self.certificate.error <= EXACT:
            return "optimal"
        if self.proved_ratio() >= OPTIMAL_RATIO:
            if self.certificate.alternations >= sum(type) + 2:
                return "optimal"
            if self.converged:
                return "degenerate"
        return "stalled"


def fit(
    target: AnyTarget | str | Callable[[Array], ArrayLike],
    type: tuple[int, int] = (9, 8),  # noqa: A002
    *,
    method: Method = "auto",
    start: Fit | None = None,
    throw: bool = True,
) -> Fit:
    """The best approximant of type (p, q) to a gate, in the sup norm on its set, pole-free on its hull.

    `target` is a `Target`, a name with its defaults, or a callable on [−1, 1]; `start` is a fit of a similar
    problem, such as the previous threshold or a lower type, tried first. Starts are tried in turn until one is
    certified; if none is, the best of them is returned with its status, or with `throw` FitError is raised. A
    `method` other than "auto" returns what that method finds and never raises for its quality; it takes no weight.

    >>> result = fit("relu", (3, 2))
    >>> round(result.error, 7), result.alternations, result.status
    (0.0218445, 7, 'optimal')
    """
    began = time.perf_counter()
    if not isinstance(target, Target | FunctionTarget):
        target = named_target(target)
    type = _checked_type(type)  # noqa: A001
    unit = target.normalised()
    if method != "auto":
        return _scaled_back(_by_other_means(unit, type, method), target, type, time.perf_counter() - began)
    best: _Candidate | None = None
    tried = []
    for candidate in _candidates(unit, type, start):
        tried.append(candidate.start)
        if best is None or _rank(candidate, type) > _rank(best, type):
            best = candidate
        if best.status(type) in PROVED:
            break
    assert best is not None  # the ladder is never empty
    result = _scaled_back(best, target, type, time.perf_counter() - began)
    if throw and result.status not in PROVED:
        raise FitError(_failure(result, tried), "widen the gap, or use a lower type (q + 1, q) with q even")
    return result


def _checked_type(type: tuple[int, int]) -> tuple[int, int]:  # noqa: A002
    p, q = type
    if int(p) != p or int(q) != q or p < 0 or q < 0 or max(p, q) > LARGEST_DEGREE:
        cause = f"type ({p},{q}) is not two whole numbers from 0 to {LARGEST_DEGREE}"
        raise FitError(cause, "use a type such as 3,2 or 9,8")
    return int(p), int(q)


def _rank(candidate: _Candidate, type: tuple[int, int]) -> tuple[int, float]:  # noqa: A002
    order = ("pole", "stalled", "degenerate", "optimal")
    return order.index(candidate.status(type)), -candidate.certificate.error


def _failure(result: Fit, tried: list[str]) -> str:
    p, q = result.type
    return (
        f"{result.target.name} type ({p},{q}) is {result.status}: error {result.error:.3e} with "
        f"{result.alternations} of {p + q + 2} alternations, peak ratio {result.peak_ratio:.3f}, "
        f"starts tried: {', '.join(tried)}"
    )


def _candidates(target: AnyTarget, type: tuple[int, int], start: Fit | None) -> Iterator[_Candidate]:  # noqa: A002
    """Fits of a normalised target, best bet first."""
    p, q = type
    plain = isinstance(target, Target) and target.name in WITHOUT_GAP and target.kappa == 1
    if plain and p == q + 1 and q % 2 == 0 and q > 0:
        yield _by_square_root(target, q // 2)
    if start is not None and len(start.poles) <= q:
        yield _corrected(target, type, _denominator_of(start), "warm")
    if isinstance(target, Target) and target.kappa != 1:
        # A precaution: JumpReLU with κ = 64 and 1024 is certified from the ladder as well.
        factor = min(KAPPA_STEP, max(1 / KAPPA_STEP, target.kappa))
        nearer = fit(replace(target, kappa=target.kappa / factor), type, throw=False)
        yield _corrected(target, type, _denominator_of(nearer), "continuation")
    for name, denominator in _starts(target, q):
        yield _corrected(target, type, denominator, name)


def _by_square_root(target: AnyTarget, k: int) -> _Candidate:
    """relu = (t + √(t²)) / 2: the poles of s on the negative axis become pairs ±iy; a leaky relu adds a line."""
    assert isinstance(target, Target)
    root = baryrat.brasil(np.sqrt, (0.0, 1.0), k, tol=1e-6, info=False)
    y = np.sqrt(np.abs(np.real(root.poles())))
    t = clustered_grid(target)
    relu = (t + np.asarray(root(t * t))) / 2
    values = target.height * (target.slope * t + (1 - target.slope) * relu)
    return _levelled(from_poles(1j * y, t, values), target, None, "sqrt")


def _denominator_of(other: Fit) -> Callable[[Array], Array]:
    """The denominator of another fit, brought to [−1, 1]."""
    roots = (other.poles - other.target.centre) / other.target.radius

    def denominator(t: Array) -> Array:
        values = poles.monic(roots, t)
        return values if values.min() > 0 else np.ones_like(t)

    return denominator


def _starts(target: AnyTarget, q: int) -> Iterator[tuple[str, Callable[[Array], Array]]]:
    """The ladder: Zolotarev's denominator for a jump of this gap, a wider one, a constant."""
    kinks = target.kinks or (0.0,)
    at = np.array([kinks[i % len(kinks)] for i in range(q // 2)])

    def quadratics(squared: Array) -> Callable[[Array], Array]:
        return lambda t: np.prod((t[:, None] - at) ** 2 + squared, axis=1)

    if q >= 2:
        # Without a gap the best poles reach down to about the best error, 4 exp(−π√q)
        # (half of 8 exp(−π√q), Stahl's rate for |t|, Sbornik: Mathematics 76, 1993).
        gap = _narrowest_gap(target) or min(0.5, 4 * np.exp(-np.pi * np.sqrt(q)))
        yield "zolotarev", quadratics(zolotarev_nodes(q + q % 2, gap)[0::2][: q // 2])
        yield "wide", quadratics(np.geomspace(gap, 1.0, q // 2) ** 2 * 4)
    yield "constant", np.ones_like


def _narrowest_gap(target: AnyTarget) -> float:
    """Half-width of the narrowest gap; 0 without one."""
    return min(((b[0] - a[1]) / 2 for a, b in pairwise(target.domain)), default=0.0)


def _corrected(
    target: AnyTarget,
    type: tuple[int, int],  # noqa: A002
    start: Callable[[Array], Array],
    name: str,
) -> _Candidate:
    """Differential correction on the clustered grid and, where that falls short, on the error's true peaks."""
    t = clustered_grid(target)
    found = _on_grid(t, target, type, start)
    candidate = _of_type(found, t, target, type, name)
    for _ in range(PEAK_ROUNDS):
        if candidate.status(type) in PROVED or not found.converged:
            return candidate
        t, again = np.union1d(t, candidate.certificate.points), _chebyshev_series(found.denominator)
        if again(np.union1d(t, gap_points(target))).min() <= 0:
            break  # a root between the points: a common factor of P and Q, if the grid's best has one
        found = _on_grid(t, target, type, again)
        candidate = _of_type(found, t, target, type, name)
    common = len(found.roots) < type[1] or np.any(found.roots.imag == 0)
    if candidate.status(type) in PROVED or not (found.converged and common) or min(type) == 0:
        return candidate
    lower = _on_grid(t, target, (type[0] - 1, type[1] - 1), np.ones_like)
    reduced = _expanded(lower, target, type, name, proof=found)
    return reduced if _rank(reduced, type) > _rank(candidate, type) else candidate


def _on_grid(t: Array, target: AnyTarget, type: tuple[int, int], start: Callable[[Array], Array]) -> Corrected:  # noqa: A002
    return correct(t, target(t), gap_points(target), type, start, weight=target.weight(t))


def _of_type(found: Corrected, t: Array, target: AnyTarget, type: tuple[int, int], start: str) -> _Candidate:  # noqa: A002
    """What the grid gave, in the form that its type allows."""
    p, q = type
    if p == q + 1 and q % 2 == 0 and len(found.roots) == q and np.all(found.roots.imag != 0):
        return _levelled(from_poles(upper_poles(found.roots), t, found.values), target, found, start)
    return _expanded(found, target, type, start, proof=found)


def _proved_by(found: Corrected, certificate: Certificate) -> bool:
    """True when the best error on the grid, which bounds the best on the set from below, is this error."""
    return found.converged and certificate.error <= found.error / OPTIMAL_RATIO


def _expanded(
    found: Corrected,
    target: AnyTarget,
    type: tuple[int, int],  # noqa: A002
    start: str,
    *,
    proof: Corrected,
) -> _Candidate:
    """A candidate that is kept, and certified, as coefficients in powers of t. `proof` is the grid's best of the
    type; `found` is it, or of a lower type where the best of the type is one with a common factor added."""
    largest = chebyshev.chebval(poles.highest_point(found.roots, UNIT), found.denominator)
    numerator = _padded(chebyshev.cheb2poly(found.numerator / largest), type[0])
    denominator = _padded(chebyshev.cheb2poly(found.denominator / largest), type[1])
    certificate = certify(_ratio(numerator, denominator), target, near_poles(found.roots))
    # Expanded coefficients may have lost what was proved of the factors: then the proof goes too.
    return _Candidate(certificate, numerator, denominator, found.roots, None, _proved_by(proof, certificate), start)


def _levelled(fractions: PartialFractions, target: AnyTarget, found: Corrected | None, start: str) -> _Candidate:
    """A candidate that is kept, and certified, as partial fractions; its P and Q are a convenience, whose
    own error the fit states."""
    fractions, certificate = polish(fractions, target)
    numerator, denominator = to_rational(fractions, tolerance=np.inf)
    proved = found is not None and _proved_by(found, certificate)
    return _Candidate(certificate, numerator, denominator, fractions.roots, fractions, proved, start)


def _by_other_means(target: AnyTarget, type: tuple[int, int], method: Method) -> _Candidate:  # noqa: A002
    """What another method finds, on the dense uniform grid that such methods use."""
    t = relaxed.dense_grid(target)
    f = target(t)
    if np.any(target.weight(t) != 1):
        raise FitError(f"{method} takes no weight", 'use method "auto", or leave kappa at 1')
    if method == "aaa":
        numerator, denominator = baselines.aaa(t, f, type)
        roots = polynomial.polyroots(denominator).astype(np.complex128)
        largest = abs(polynomial.polyval(poles.highest_point(roots, UNIT), denominator))
        numerator, denominator = _padded(numerator, type[0]) / largest, _padded(denominator, type[1]) / largest
        certificate = certify(_ratio(numerator, denominator), target, near_poles(roots))
        return _Candidate(certificate, numerator, denominator, roots, None, False, "aaa")
    found = baselines.adam(t, f, type) if method == "adam" else relaxed.relaxed_remez(t, f, type)
    denominator = np.concatenate([[1.0], found.b])
    largest = float(1 + np.max(np.abs(polynomial.polyval(t, np.concatenate([[0.0], found.b])))))
    roots = polynomial.polyroots(np.trim_zeros(denominator, "b")).astype(np.complex128)
    certificate = certify(found, target, near_poles(roots))
    return _Candidate(certificate, found.a / largest, denominator / largest, roots, None, False, method, found)


def _ratio(numerator: Array, denominator: Array) -> Callable[[Array], Array]:
    def ratio(t: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return polynomial.polyval(t, numerator) / polynomial.polyval(t, denominator)

    return ratio


def _chebyshev_series(coefficients: Array) -> Callable[[Array], Array]:
    return lambda t: np.asarray(chebyshev.chebval(t, coefficients), dtype=np.float64)


def _padded(coefficients: ArrayLike, degree: int) -> Array:
    known = np.asarray(coefficients, dtype=np.float64)
    result = np.zeros(degree + 1)
    result[: len(known)] = known
    return result


def _scaled_back(candidate: _Candidate, target: AnyTarget, type: tuple[int, int], seconds: float) -> Fit:  # noqa: A002
    """The candidate in the target's own units: t = centre + radius · u, f = magnitude · g."""
    centre, radius, magnitude = target.centre, target.radius, target.magnitude
    low, high = poles.extremes(candidate.roots, UNIT)
    fractions, pade = candidate.fractions, candidate.safe_pade
    if pade is not None:  # 1 + |B| is never below 1
        low, high = 1.0, float(1 / candidate.denominator[0])
    return Fit(
        target=target,
        type=type,
        partial_fractions=None if fractions is None else fractions.scaled(radius, magnitude).shifted(centre),
        safe_pade=None if pade is None else pade.scaled(radius, magnitude).shifted(centre),
        numerator=candidate.numerator * magnitude / radius ** np.arange(type[0] + 1),
        denominator=candidate.denominator / radius ** np.arange(type[1] + 1),
        error=candidate.certificate.error * magnitude,
        alternations=candidate.certificate.alternations,
        alternation_points=centre + candidate.certificate.points * radius,
        peak_ratio=candidate.certificate.peak_ratio,
        min_denominator=low / high,
        status=candidate.status(type),
        start=candidate.start,
        conditioning=conditioning(fractions, candidate.numerator, candidate.denominator),
        expansion_error=candidate.expansion_error() * magnitude,
        seconds=seconds,
    )
