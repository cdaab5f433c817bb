"""What a fit returns: the function, its certificate and how it was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.polynomial import polynomial
from numpy.typing import ArrayLike, NDArray

from rational_sae.errors import FitError
from rational_sae.rational.forms import PartialFractions
from rational_sae.rational.targets import Interval, Target

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted gate. Call it to evaluate it: `fit(t)`."""

    target: Target
    """What was fitted."""
    type: tuple[int, int]
    """(p, q), the degrees asked for."""
    partial_fractions: PartialFractions | None
    """The trainable form; None unless p = q + 1, q is even and no pole is real."""
    numerator: Array
    """[p + 1], ascending powers of t."""
    denominator: Array
    """[q + 1], ascending powers of t, max Q = 1 on the set's hull."""
    error: float
    """Sup norm on the set, measured on a grid that the fit did not use."""
    alternations: int
    """Error peaks of alternating sign; p + q + 2 prove the fit the best of its type."""
    alternation_points: Array
    """[alternations], where they are."""
    peak_ratio: float
    """Smallest over largest of these peaks; no fit has an error below peak_ratio · error."""
    min_denominator: float
    """min Q over the set's hull, gap included, with max Q = 1; from critical points, not a grid."""
    status: str
    """"optimal": certified. "degenerate": proved best on the fitting grid, with fewer alternations, so
    the best of a lower type. "stalled": neither. "pole": Q has a zero on the hull."""
    start: str
    """Which start led here: "sqrt", "zolotarev", "wide" or "constant"."""
    expansion_error: float
    """Largest |P/Q − r| on the hull, P/Q in float64. 0 where P and Q are all there is; where it is not far
    below `error` (a narrow gap near ±1), use the partial fractions."""
    seconds: float
    """Wall-clock time of the fit."""

    def __call__(self, t: ArrayLike) -> Array:
        """r(t), of the shape of t."""
        if self.partial_fractions is not None:
            return self.partial_fractions(t)
        t = np.asarray(t, dtype=np.float64)
        return polynomial.polyval(t, self.numerator) / polynomial.polyval(t, self.denominator)

    @property
    def domain(self) -> tuple[Interval, ...]:
        """The intervals on which `error` holds."""
        return self.target.domain

    def to_json(self) -> dict[str, Any]:
        """Everything as plain numbers: what `rsae fit --json` writes."""
        fractions = self.partial_fractions
        return {
            "target": self.target.name,
            "threshold": self.target.threshold,
            "gap": self.target.gap,
            "radius": self.target.radius,
            "height": self.target.height,
            "type": list(self.type),
            "domain": [list(interval) for interval in self.domain],
            "error": self.error,
            "alternations": self.alternations,
            "alternation_points": self.alternation_points.tolist(),
            "peak_ratio": self.peak_ratio,
            "min_denominator": self.min_denominator,
            "status": self.status,
            "start": self.start,
            "numerator": self.numerator.tolist(),
            "denominator": self.denominator.tolist(),
            "expansion_error": self.expansion_error,
            "partial_fractions": None if fractions is None else fractions.to_dict(),
            "seconds": self.seconds,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`; FitError where something is missing or of another form or version."""
        try:
            fractions = data["partial_fractions"]
            return cls(
                target=Target(data["target"], data["threshold"], data["gap"], data["radius"], data["height"]),
                type=(int(data["type"][0]), int(data["type"][1])),
                partial_fractions=None if fractions is None else PartialFractions.from_dict(fractions),
                numerator=np.asarray(data["numerator"], dtype=np.float64),
                denominator=np.asarray(data["denominator"], dtype=np.float64),
                error=float(data["error"]),
                alternations=int(data["alternations"]),
                alternation_points=np.asarray(data["alternation_points"], dtype=np.float64),
                peak_ratio=float(data["peak_ratio"]),
                min_denominator=float(data["min_denominator"]),
                status=str(data["status"]),
                start=str(data["start"]),
                expansion_error=float(data["expansion_error"]),
                seconds=float(data["seconds"]),
            )
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise FitError(f"not a stored fit ({error!r})", "fit again") from error
