"""What a rational function stands in for: the gates by name, or any callable on a union of intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rational_sae.errors import FitError

Array = NDArray[np.float64]
Function = Callable[[Array], ArrayLike]
Interval = tuple[float, float]

NAMES = ("relu", "jumprelu", "step", "sign", "leaky_relu")
LINEAR_GROWTH = ("relu", "jumprelu", "leaky_relu")
"""Gates whose values have the units of t."""
WITHOUT_GAP = ("relu", "leaky_relu")
"""Continuous gates; their kink is at 0."""
DEFAULT_THRESHOLD = {"jumprelu": 0.1, "step": 0.1}
"""Thresholds used when none is given, 0 elsewhere. θ = .1 is the middle one of docs/fits.md."""
DEFAULT_GAP = {"jumprelu": 0.02, "step": 0.02, "sign": 0.02}
"""Gap half-widths used when none is given. δ = .02 is the middle one of docs/fits.md."""
DEFAULT_SLOPE = 0.01
"""Slope of a leaky ReLU left of 0 when none is given, as in torch."""
MAGNITUDE_POINTS = 1001
"""Points of each interval on which a callable's size is measured."""


@dataclass(frozen=True)
class Target:
    """A gate and the set on which it is approximated.

    The function has its kink or jump at `threshold`; the set is [−radius, radius] less the open
    interval (threshold − gap, threshold + gap). `height` multiplies the values.
    """

    name: str
    """One of `NAMES`."""
    threshold: float = 0.0
    """θ, in the units of t. Always 0 for relu and leaky_relu."""
    gap: float = 0.0
    """δ, the half-width of what is left out around θ, in the units of t. 0 for relu, positive elsewhere:
    a continuous function errs by half the jump wherever no gap is left."""
    radius: float = 1.0
    """The set lies in [−radius, radius]."""
    height: float = 1.0
    """Factor on the values; 1 is the plain gate."""
    slope: float = 0.0
    """Of leaky_relu left of 0; 0 for every other gate."""
    kappa: float = 1.0
    """κ, weight of the error right of the threshold; 1 to the left of it."""

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise FitError(f"unknown target {self.name!r}", f"use one of {', '.join(NAMES)}")
        numbers = (self.threshold, self.gap, self.radius, self.height, self.slope, self.kappa)
        if not all(math.isfinite(number) for number in numbers):
            raise FitError(f"target {self.name} has a number that is not finite", "give finite numbers")
        if self.radius <= 0 or self.height == 0:
            raise FitError("radius must be positive and height non-zero", "leave both at 1")
        if self.kappa <= 0:
            raise FitError(f"kappa must be positive (got {self.kappa:g})", "leave it at 1")
        if self.slope != 0 and self.name != "leaky_relu":
            raise FitError(f"{self.name} takes no slope", "drop it, or fit leaky_relu")
        if self.name in WITHOUT_GAP:
            if self.threshold != 0 or self.gap != 0:
                raise FitError(f"{self.name} takes no threshold and no gap", "drop them, or fit jumprelu")
        elif self.gap <= 0:
            cause = f"{self.name} needs a gap around its jump (got {self.gap:g})"
            raise FitError(cause, "give --gap δ > 0: no continuous function follows a jump without one")
        elif abs(self.threshold) + self.gap >= self.radius:
            cause = f"threshold {self.threshold:g} with gap {self.gap:g} leaves nothing on one side"
            raise FitError(cause, f"keep |threshold| + gap below {self.radius:g}")

    def __call__(self, t: ArrayLike) -> Array:
        """The exact function; t of any shape, the result float64 of the same shape."""
        t = np.asarray(t, dtype=np.float64)
        above = t > self.threshold
        if self.name in LINEAR_GROWTH:
            values = np.where(above, t, self.slope * t)
        elif self.name == "step":
            values = above.astype(np.float64)
        else:
            values = np.sign(t - self.threshold)
        return self.height * values

    def weight(self, t: ArrayLike) -> Array:
        """Weight of the error at t, of its shape: κ right of the threshold, 1 elsewhere."""
        return np.where(np.asarray(t, dtype=np.float64) > self.threshold, self.kappa, 1.0)

    @property
    def centre(self) -> float:
        """Middle of the hull."""
        return 0.0

    @property
    def kinks(self) -> tuple[float, ...]:
        """Where grids cluster."""
        return (self.threshold,)

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
        largest = self.radius * max(1.0, abs(self.slope)) if self.name in LINEAR_GROWTH else 1.0
        return abs(self.height) * largest

    def normalised(self) -> Target:
        """The same problem on [−1, 1] with values of magnitude 1."""
        return replace(
            self,
            threshold=self.threshold / self.radius,
            gap=self.gap / self.radius,
            radius=1.0,
            height=math.copysign(1.0, self.height) / max(1.0, abs(self.slope)),
        )

    def scaled(self, t_factor: float = 1.0, f_factor: float = 1.0) -> Target:
        """The target g with g(t_factor · t) = f_factor · f(t); t_factor > 0."""
        per_unit = t_factor if self.name in LINEAR_GROWTH else 1.0
        return replace(
            self,
            threshold=self.threshold * t_factor,
            gap=self.gap * t_factor,
            radius=self.radius * t_factor,
            height=self.height * f_factor / per_unit,
        )


@dataclass(frozen=True, eq=False)
class FunctionTarget:
    """Any callable on a union of closed intervals, with any positive weight."""

    function: Function
    """float64 array → values of its shape."""
    domain: tuple[Interval, ...] = ((-1.0, 1.0),)
    """Disjoint closed intervals, from left to right."""
    kinks: tuple[float, ...] = ()
    """Where the function bends, jumps or is singular, ends included; grids cluster there, and a narrow feature that
    is not named may be missed. The middle of every gap is added."""
    weights: Function | None = None
    """Weight of the error, positive on the set; None means 1 everywhere."""
    name: str = field(default="callable", init=False)

    def __post_init__(self) -> None:
        intervals = tuple((float(low), float(high)) for low, high in self.domain)
        ends = [end for interval in intervals for end in interval]
        if not ends or not np.isfinite(ends).all() or any(b <= a for a, b in pairwise(ends)):
            raise FitError(f"{self.domain} is not a union of intervals", "give disjoint (low, high), left to right")
        object.__setattr__(self, "domain", intervals)
        middles = [(a[1] + b[0]) / 2 for a, b in pairwise(intervals)]
        inside = [float(kink) for kink in self.kinks if ends[0] <= kink <= ends[-1]]
        object.__setattr__(self, "kinks", tuple(sorted({*inside, *middles})))
        points = self._sample()
        if not (np.isfinite(self(points)).all() and (self.weight(points) > 0).all()):
            raise FitError("the callable is not finite, or its weight not positive, on the set", "change the set")

    def __call__(self, t: ArrayLike) -> Array:
        """The exact function; t of any shape, the result float64 of the same shape."""
        t = np.asarray(t, dtype=np.float64)
        return np.broadcast_to(np.asarray(self.function(t), dtype=np.float64), t.shape)

    def weight(self, t: ArrayLike) -> Array:
        """Weight of the error at t, of its shape."""
        t = np.asarray(t, dtype=np.float64)
        return np.ones_like(t) if self.weights is None else np.asarray(self.weights(t), dtype=np.float64)

    @property
    def hull(self) -> Interval:
        """The smallest interval that holds the set."""
        return (self.domain[0][0], self.domain[-1][1])

    @property
    def centre(self) -> float:
        """Middle of the hull."""
        return (self.hull[0] + self.hull[1]) / 2

    @property
    def radius(self) -> float:
        """Half the length of the hull."""
        return (self.hull[1] - self.hull[0]) / 2

    @property
    def magnitude(self) -> float:
        """Largest |value| seen on MAGNITUDE_POINTS of each interval; 1 for a zero function."""
        return float(np.max(np.abs(self(self._sample())))) or 1.0

    def _sample(self) -> Array:
        return np.concatenate([np.linspace(low, high, MAGNITUDE_POINTS) for low, high in self.domain])

    def normalised(self) -> FunctionTarget:
        """The same problem on [−1, 1] with values of magnitude 1."""
        centre, radius, magnitude = self.centre, self.radius, self.magnitude

        def there(u: Array) -> Array:
            return np.clip(centre + radius * u, *self.hull)

        domain = [((low - centre) / radius, (high - centre) / radius) for low, high in self.domain]
        domain[0], domain[-1] = (-1.0, domain[0][1]), (domain[-1][0], 1.0)
        return FunctionTarget(
            lambda u: self(there(u)) / magnitude,
            tuple(domain),
            tuple((kink - centre) / radius for kink in self.kinks),
            lambda u: self.weight(there(u)),
        )


AnyTarget = Target | FunctionTarget


@overload
def target(
    what: str,
    threshold: float | None = None,
    gap: float | None = None,
    *,
    slope: float | None = None,
    kappa: float = 1.0,
) -> Target: ...


@overload
def target(
    what: Function, *, domain: Sequence[Interval] = ..., kinks: Sequence[float] = ..., weights: Function | None = None
) -> FunctionTarget: ...


def target(
    what: str | Function,
    threshold: float | None = None,
    gap: float | None = None,
    *,
    slope: float | None = None,
    kappa: float = 1.0,
    domain: Sequence[Interval] = ((-1.0, 1.0),),
    kinks: Sequence[float] = (),
    weights: Function | None = None,
) -> AnyTarget:
    """A gate by name on [−1, 1], with the defaults above, or any callable on `domain`.

    threshold, gap, slope and kappa belong to names; domain, kinks and weights to callables.

    >>> target("jumprelu").domain
    ((-1.0, 0.08), (0.12000000000000001, 1.0))
    """
    if not isinstance(what, str):
        return FunctionTarget(what, tuple(domain), tuple(kinks), weights)
    threshold = DEFAULT_THRESHOLD.get(what, 0.0) if threshold is None else threshold
    gap = DEFAULT_GAP.get(what, 0.0) if gap is None else gap
    slope = (DEFAULT_SLOPE if what == "leaky_relu" else 0.0) if slope is None else slope
    return Target(what, float(threshold), float(gap), slope=float(slope), kappa=float(kappa))
