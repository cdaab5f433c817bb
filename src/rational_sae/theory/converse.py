"""The converse: what one-layer encoders need for f(x) = η²/(x² + η²), two parameters for a rational function.

One scalar input x ∈ [−1, 1], pre-activations w_j x + b_j, a linear decoder; sup error ε. A ReLU layer is a continuous
piecewise linear function and a JumpReLU layer one with jumps, each unit active on a half-line and changing the line at
its end. So width is at least the pieces less one; and since a unit faces left or right, at x = −1 or at x = 1 at least
half of them are active. Both bounds hold for every construction, and a ReLU spline, which is a JumpReLU layer with all
thresholds 0, meets them to a few units. TopK is different: its selection compares units, so that a unit can be active
on any interval, and one active unit is enough at any ε, at a width of 1/ε.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

ETA = 0.2
EPSILONS = tuple(float(e) for e in 10.0 ** -np.arange(1.5, 5.6, 0.25))
FLAT = 0.9
"""Share of ε for the steps of a TopK layer; the rest is for the slope that tells its units apart."""
TOPK_SMALLEST = 3e-4
"""Below it a TopK layer of width 1/ε is too wide to be evaluated quickly."""
GRID = 400_001
"""Points of [−1, 1]; the narrowest piece at ε = 1e-6 still holds more than a hundred."""
SPLITS = 2
"""Breakpoints that `_jumps` may have above the fewest: it always breaks where the curvature changes sign."""
SLACK = 0.999
"""Share of ε that a construction may use on the grid: the rest is for what lies between its points."""


def f(x: Array, eta: float = ETA) -> Array:
    """η² / (x² + η²)."""
    return eta * eta / (x * x + eta * eta)


@dataclass(frozen=True)
class Layer:
    """A one-layer encoder with a linear decoder, on scalar inputs: z = h·[h > 0], of all units or of the k largest."""

    w: Array
    """[width]"""
    b: Array
    """[width]"""
    decoder: Array
    """[width]"""
    offset: float
    k: int | None = None

    def __call__(self, x: Array) -> tuple[Array, Array]:
        """x̂: [n] and the number of active units: [n]."""
        out, active = np.empty_like(x), np.empty(len(x))
        for start in range(0, len(x), 2000):
            part = slice(start, start + 2000)
            h = x[part, None] * self.w + self.b
            on = h > 0
            if self.k is not None:
                largest = np.zeros_like(on)
                np.put_along_axis(largest, np.argpartition(-h, self.k - 1, axis=1)[:, : self.k], True, axis=1)
                on &= largest
            out[part] = (h * on) @ self.decoder + self.offset
            active[part] = on.sum(axis=1)
        return out, active


@dataclass(frozen=True)
class Need:
    """What one construction needs."""

    family: str
    epsilon: float
    width: int
    active_max: int
    """At the worst x."""
    active_mean: float
    """Over x uniform on [−1, 1]."""
    error: float
    """Measured sup error."""
    width_bound: int
    """No layer of this family is narrower."""
    active_bound: int
    """No layer of this family has fewer active units at its worst x."""


def needs(told: Callable[[], None] = lambda: None) -> Iterator[Need]:
    """Every family at every ε; each construction is evaluated, not assumed."""
    for epsilon in EPSILONS:
        least = len(_jumps(epsilon)) - SPLITS
        bounds = least, -(-least // 2)
        spline = _need("relu", epsilon, relu_layer(epsilon), bounds)
        yield from (spline, replace(spline, family="jumprelu"))
        if epsilon > TOPK_SMALLEST:
            yield _need("topk", epsilon, topk_layer(epsilon), (1, 1))
        told()


def _need(family: str, epsilon: float, layer: Layer, bounds: tuple[int, int]) -> Need:
    even = np.linspace(-1, 1, 20_001)
    x = np.concatenate([even, np.linspace(-ETA, ETA, 20_001)])
    found, active = layer(x)
    error, active = float(np.max(np.abs(found - f(x)))), active[: len(even)]
    return Need(family, epsilon, len(layer.w), int(active.max()), float(active.mean()), error, *bounds)


def relu_layer(epsilon: float) -> Layer:
    """The spline with the fewest knots in the tube f ± ε, found greedily; units face away from 0."""
    knots, values = tube_spline(epsilon)
    slopes = np.diff(values) / np.diff(knots)
    middle = int(np.searchsorted(knots, 0.0, side="right")) - 1  # the piece that holds 0 is the affine part
    inner, change = knots[1:-1], np.diff(slopes)
    right = inner > 0
    w = np.where(right, 1.0, -1.0)
    line = [1.0, -1.0]  # x itself, as two units of which one is active
    level = values[middle] - slopes[middle] * knots[middle]
    return Layer(
        np.concatenate([w, line]),
        np.concatenate([-w * inner, [0.0, 0.0]]),
        np.concatenate([change, slopes[middle] * np.array(line)]),
        float(level),
    )


def tube_spline(epsilon: float) -> tuple[Array, Array]:
    """Knots and values of a continuous piecewise linear function within ε of f, each link as long as can be.

    On a stretch of one curvature this is the best there is: links start and end on one side of the tube and touch
    the other, the alternation of the best line.
    """
    x = np.linspace(-1.0, 1.0, GRID)
    y, e = f(x), SLACK * epsilon
    at, value = 0, float(y[0] - e)  # f is convex at −1
    knots, values = [x[0]], [value]
    while at < GRID - 1:
        at, value = _longest_link(x, y, e, at, value)
        knots.append(x[at])
        values.append(value)
    return np.array(knots), np.array(values)


def _longest_link(x: Array, y: Array, e: float, at: int, value: float) -> tuple[int, float]:
    """The furthest grid point that a line from (x[at], value) reaches inside the tube, and its value there."""
    window = 64
    while True:
        to = slice(at + 1, min(at + 1 + window, len(x)))
        run = x[to] - x[at]
        low = np.maximum.accumulate((y[to] - e - value) / run)
        high = np.minimum.accumulate((y[to] + e - value) / run)
        good = int(np.sum(np.logical_and.accumulate(low <= high)))
        if good < len(run) or to.stop == len(x):
            last = at + good
            # Of the slopes left, the one that bends the way f does: it reaches the next link's better side.
            convex = 3 * x[last] ** 2 > ETA * ETA
            slope = low[good - 1] if convex else high[good - 1]
            return last, value + slope * (x[last] - x[at])
        window *= 4


def _jumps(epsilon: float) -> Array:
    """Inner breakpoints of the piecewise linear function with jumps that has the fewest pieces, split where f's
    curvature changes sign (at most two pieces more than the best)."""
    bend = ETA / np.sqrt(3)
    ends: list[float] = []
    for low, high in ((-1.0, -bend), (-bend, bend), (bend, 1.0)):
        at = low
        while at < high:
            at = _longest_piece(at, high, epsilon)
            ends.append(at)
    return np.array(ends[:-1])


def _longest_piece(low: float, high: float, epsilon: float) -> float:
    """The furthest end of a piece whose best line errs by ε; f has one curvature, so that is half of the chord's."""

    def error(end: float) -> float:
        x = low + (end - low) * np.linspace(0, 1, 201)
        y = f(x)
        return float(np.max(np.abs(y - np.interp(x, x[[0, -1]], y[[0, -1]])))) / 2

    if error(high) <= epsilon:
        return high
    short, long = low, high
    for _ in range(50):
        middle = (short + long) / 2
        short, long = (middle, long) if error(middle) <= SLACK * epsilon else (short, middle)
    return short


def topk_layer(epsilon: float) -> Layer:
    """One active unit: the largest of nearly constant ones, a convex fan whose corners are the pieces' ends.

    Each piece is constant within ε. Codes are 1 + α(…) with α so small that they do not count as a slope.
    """
    top, bottom = 1.0, float(f(np.array([1.0]))[0])
    count = int(np.ceil((top - bottom) / (2 * FLAT * epsilon)))
    heights = np.linspace(top, bottom, count + 1)
    right = ETA * np.sqrt(1 / heights[1:-1] - 1)
    ends = np.concatenate([-right[::-1], right])
    levels = (heights[:-1] + heights[1:]) / 2
    level = np.concatenate([levels[:0:-1], levels])
    slope = np.arange(len(level), dtype=np.float64)
    rise = np.concatenate([[0.0], -np.cumsum(np.diff(slope) * ends)])  # equal at each end to its neighbour
    alpha = (SLACK - FLAT) * epsilon / (np.max(np.abs(slope)) + np.max(np.abs(rise)))
    return Layer(alpha * slope, 1 + alpha * rise, level, 0.0, k=1)


@dataclass(frozen=True)
class Exponent:
    """N ~ ε^−a."""

    a: float
    low: float
    high: float
    """95 % interval of the regression of log N on log 1/ε."""


def exponent(epsilon: Array, count: Array) -> Exponent:
    """Least squares on the finer half of the range, where the count is no longer small. Both: [n].

    A count that is constant there has the exponent 0 exactly; a regression leaves its interval undefined.
    """
    from scipy.stats import linregress, t

    order = np.argsort(epsilon)[: max(4, len(epsilon) // 2)]
    if np.ptp(count[order]) == 0:
        return Exponent(0.0, 0.0, 0.0)
    fitted = linregress(-np.log(epsilon[order]), np.log(count[order]))
    slope, error = float(fitted.slope), float(fitted.stderr)  # type: ignore[attr-defined]
    half = error * float(t.ppf(0.975, len(order) - 2))
    return Exponent(slope, slope - half, slope + half)
