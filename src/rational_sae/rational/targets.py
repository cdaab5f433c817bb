"""The gates that a rational function stands in for: relu, jumprelu, step and sign."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rational_sae.errors import FitError

Interval = tuple[float, float]

NAMES = ("relu", "jumprelu", "step", "sign")
DEFAULT_THRESHOLD = {"relu": 0.0, "jumprelu": 0.1, "step": 0.1, "sign": 0.0}
"""Thresholds used when none is given. θ = .1 is the middle row of NUMERICS §1."""
DEFAULT_GAP = {"relu": 0.0, "jumprelu": 0.02, "step": 0.02, "sign": 0.02}
"""Gap half-widths used when none is given. δ = .02 is the middle column of NUMERICS §1."""


@dataclass(frozen=True)
class Target:
    """A scalar function of t and the set on which it is approximated.

    The function has its kink or jump at `threshold`; the set is [−radius, radius] less the open
    interval (threshold − gap, threshold + gap). `height` multiplies the values.
    """

    name: str
    """One of `NAMES`."""
    threshold: float = 0.0
    """θ, in the units of t. Always 0 for relu."""
    gap: float = 0.0
    """δ, the half-width of what is left out around θ, in the units of t. 0 for relu, positive elsewhere:
    a continuous function errs by half the jump wherever no gap is left."""
    radius: float = 1.0
    """The set lies in [−radius, radius]."""
    height: float = 1.0
    """Factor on the values; 1 is the plain gate."""

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise FitError(f"unknown target {self.name!r}", f"use one of {', '.join(NAMES)}")
        numbers = (self.threshold, self.gap, self.radius, self.height)
        if not all(math.isfinite(number) for number in numbers):
            raise FitError(f"target {self.name} has a number that is not finite", "give finite numbers")
        if self.radius <= 0 or self.height == 0:
            raise FitError("radius must be positive and height non-zero", "leave both at 1")
        if self.name == "relu":
            if self.threshold != 0 or self.gap != 0:
                raise FitError("relu takes no threshold and no gap", "drop them, or fit jumprelu")
        elif self.gap <= 0:
            cause = f"{self.name} needs a gap around its jump (got {self.gap:g})"
            raise FitError(cause, "give --gap δ > 0: no continuous function follows a jump without one")
        elif abs(self.threshold) + self.gap >= self.radius:
            cause = f"threshold {self.threshold:g} with gap {self.gap:g} leaves nothing on one side"
            raise FitError(cause, f"keep |threshold| + gap below {self.radius:g}")

    def __call__(self, t: ArrayLike) -> NDArray[np.float64]:
        """The exact function; t of any shape, the result float64 of the same shape."""
        t = np.asarray(t, dtype=np.float64)
        above = t > self.threshold
        if self.name in ("relu", "jumprelu"):
            values = np.where(above, t, 0.0)
        elif self.name == "step":
            values = above.astype(np.float64)
        else:
            values = np.sign(t - self.threshold)
        return self.height * values

    @property
    def kink(self) -> float:
        """Where grids cluster."""
        return self.threshold

    @property
    def domain(self) -> tuple[Interval, ...]:
        """The closed intervals of the approximation set, from left to right."""
        if self.gap == 0:
            return ((-self.radius, self.radius),)
        left = (-self.radius, self.threshold - self.gap)
        return (left, (self.threshold + self.gap, self.radius))

    @property
    def hull(self) -> Interval:
        """The smallest interval that holds the set."""
        return (-self.radius, self.radius)

    @property
    def magnitude(self) -> float:
        """Largest |value| on the set."""
        return abs(self.height) * (self.radius if self.name in ("relu", "jumprelu") else 1.0)

    def normalised(self) -> Target:
        """The same problem on [−1, 1] with values of magnitude 1."""
        return replace(
            self,
            threshold=self.threshold / self.radius,
            gap=self.gap / self.radius,
            radius=1.0,
            height=math.copysign(1.0, self.height),
        )

    def scaled(self, t_factor: float = 1.0, f_factor: float = 1.0) -> Target:
        """The target g with g(t_factor · t) = f_factor · f(t); t_factor > 0."""
        per_unit = t_factor if self.name in ("relu", "jumprelu") else 1.0
        return replace(
            self,
            threshold=self.threshold * t_factor,
            gap=self.gap * t_factor,
            radius=self.radius * t_factor,
            height=self.height * f_factor / per_unit,
        )


def target(name: str, threshold: float | None = None, gap: float | None = None) -> Target:
    """A gate by name on [−1, 1], with the defaults of `DEFAULT_THRESHOLD` and `DEFAULT_GAP`.

    >>> target("jumprelu").domain
    ((-1.0, 0.08), (0.12000000000000001, 1.0))
    """
    threshold = DEFAULT_THRESHOLD.get(name, 0.0) if threshold is None else threshold
    gap = DEFAULT_GAP.get(name, 0.0) if gap is None else gap
    return Target(name, float(threshold), float(gap))
