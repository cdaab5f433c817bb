"""What a fit returns: the function, its certificate and how it was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.polynomial import polynomial
from numpy.typing import ArrayLike, NDArray

from rational_sae.errors import FitError
from rational_sae.rational.forms import PartialFractions, SafePade
from rational_sae.rational.grids import near_poles
from rational_sae.rational.polish import jacobian
from rational_sae.rational.targets import AnyTarget, Interval, Target

Array = NDArray[np.float64]

TARGET_FIELDS = ("threshold", "gap", "radius", "height", "slope", "kappa")
"""Numbers of a named target, as stored."""
LATER = {"slope": 0.0, "kappa": 1.0, "safe_pade": None, "conditioning": None}
"""Fields that the first stored fits did not have, and what they mean where they are missing; a conditioning that was
not measured is read as infinite."""


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted gate. Call it to evaluate it: `fit(t)`."""

    target: AnyTarget
    """What was fitted."""
    type: tuple[int, int]
    """(p, q), the degrees asked for."""
    partial_fractions: PartialFractions | None
    """The trainable form; None unless p = q + 1, q is even and no pole is real."""
    numerator: Array
    """[p + 1], ascending powers of t − centre, the middle of the hull; it is 0 for every named gate."""
    denominator: Array
    """[q + 1], the same powers, max Q = 1 on the set's hull."""
    safe_pade: SafePade | None
    """The form of the methods that fit it (relaxed_remez, adam); None for every other."""
    error: float
    """Sup norm on the set (weighted where the target has a weight), measured on a grid that the fit did not use."""
    alternations: int
    """Error peaks of alternating sign; p + q + 2 prove the fit the best of its type."""
    alternation_points: Array
    """[alternations], where they are."""
    peak_ratio: float
    """Smallest over largest of these peaks. With p + q + 2 alternations no fit of the type has an error below
    peak_ratio · error; with fewer it proves nothing."""
    min_denominator: float
    """min Q over the set's hull, gap included, with max Q = 1; from critical points, not a grid."""
    status: str
    """"optimal": certified to .1 %, or exact to rounding. "degenerate": fewer alternations, but the best error on the
    fitting grid, a bound from below, is within .1 %; the best of a lower type. "stalled": nothing is proved of it.
    "pole": Q has a zero on the hull."""
    start: str
    """Which start led here: "sqrt", "warm", "continuation", "zolotarev", "wide" or "constant"; or the method."""
    conditioning: float
    """Condition number of the column-scaled Jacobian of the stored coefficients on [−1, 1]."""
    expansion_error: float
    """Largest |P/Q − r| on the hull, P/Q in float64. 0 where P and Q are all there is; where it is not far
    below `error` (a narrow gap near ±1), use the partial fractions."""
    seconds: float
    """Wall-clock time of the fit."""

    def __call__(self, t: ArrayLike) -> Array:
        """r(t), of the shape of t."""
        stored = self.partial_fractions or self.safe_pade
        if stored is not None:
            return stored(t)
        u = np.asarray(t, dtype=np.float64) - self.target.centre
        return polynomial.polyval(u, self.numerator) / polynomial.polyval(u, self.denominator)

    @property
    def poles(self) -> NDArray[np.complex128]:
        """[q] or fewer, the denominator's roots."""
        if self.partial_fractions is not None:
            return self.partial_fractions.roots
        return self.target.centre + polynomial.polyroots(np.trim_zeros(self.denominator, "b")).astype(np.complex128)

    @property
    def domain(self) -> tuple[Interval, ...]:
        """The intervals on which `error` holds."""
        return self.target.domain

    def to_json(self) -> dict[str, Any]:
        """Everything as plain numbers: what `rsae fit --json` writes. A callable has no numbers of its own; an error
        that is not finite is None, which JSON can write."""
        fractions, pade = self.partial_fractions, self.safe_pade
        numbers = {name: getattr(self.target, name, None) for name in TARGET_FIELDS}
        return {
            "target": self.target.name,
            **numbers,
            "centre": self.target.centre,
            "type": list(self.type),
            "domain": [list(interval) for interval in self.domain],
            "error": _finite(self.error),
            "alternations": self.alternations,
            "alternation_points": self.alternation_points.tolist(),
            "peak_ratio": self.peak_ratio,
            "min_denominator": self.min_denominator,
            "status": self.status,
            "start": self.start,
            "conditioning": _finite(self.conditioning),
            "numerator": self.numerator.tolist(),
            "denominator": self.denominator.tolist(),
            "expansion_error": _finite(self.expansion_error),
            "partial_fractions": None if fractions is None else fractions.to_dict(),
            "safe_pade": None if pade is None else pade.to_dict(),
            "seconds": self.seconds,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`; FitError where something is missing or of another form or version. Files written
        before there were slopes, weights and other methods are read as well: see `LATER`."""
        try:
            data = {**LATER, **data}
            fractions, pade = data["partial_fractions"], data["safe_pade"]
            return cls(
                target=Target(data["target"], **{name: data[name] for name in TARGET_FIELDS}),
                type=(int(data["type"][0]), int(data["type"][1])),
                partial_fractions=None if fractions is None else PartialFractions.from_dict(fractions),
                safe_pade=None if pade is None else SafePade.from_dict(pade),
                numerator=np.asarray(data["numerator"], dtype=np.float64),
                denominator=np.asarray(data["denominator"], dtype=np.float64),
                error=_number(data["error"]),
                alternations=int(data["alternations"]),
                alternation_points=np.asarray(data["alternation_points"], dtype=np.float64),
                peak_ratio=float(data["peak_ratio"]),
                min_denominator=float(data["min_denominator"]),
                status=str(data["status"]),
                start=str(data["start"]),
                conditioning=_number(data["conditioning"]),
                expansion_error=_number(data["expansion_error"]),
                seconds=float(data["seconds"]),
            )
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise FitError(f"not a stored fit ({error!r})", "fit again") from error


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _number(value: float | None) -> float:
    return float("inf") if value is None else float(value)


def conditioning(fractions: PartialFractions | None, numerator: Array, denominator: Array) -> float:
    """Condition number of the column-scaled Jacobian by the stored coefficients, on points of [−1, 1]: those of the
    partial fractions where there are any, else of P and Q in powers of t with Q's constant term held fixed."""
    roots = polynomial.polyroots(np.trim_zeros(denominator, "b")) if fractions is None else fractions.roots
    t = np.unique(np.clip(np.concatenate([np.cos(np.linspace(0, np.pi, 401)), near_poles(roots)]), -1, 1))
    columns = jacobian(fractions, t) if fractions is not None else _expanded_jacobian(t, numerator, denominator)
    norms = np.linalg.norm(columns, axis=0)
    columns = columns[:, np.isfinite(norms) & (norms > 0)]
    if not np.isfinite(columns).all() or columns.size == 0:
        return float("inf")
    return float(np.linalg.cond(columns / np.linalg.norm(columns, axis=0)))


def _expanded_jacobian(t: Array, numerator: Array, denominator: Array) -> Array:
    """[N, p + 1 + q], derivatives of P/Q by P's coefficients and by Q's but the constant one."""
    with np.errstate(divide="ignore", invalid="ignore"):
        by_numerator = polynomial.polyvander(t, len(numerator) - 1)
        by_numerator = by_numerator / polynomial.polyval(t, denominator)[:, None]
        ratio = by_numerator @ numerator
        by_denominator = polynomial.polyvander(t, len(denominator) - 1)[:, 1:]
        by_denominator = -ratio[:, None] * by_denominator / polynomial.polyval(t, denominator)[:, None]
    return np.hstack([by_numerator, by_denominator])
