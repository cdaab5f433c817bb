"""Holding L0 at a target while everything moves: a bounded, damped controller of the penalty's weight.

The weight λ is kept in log space. Its integral part moves by at most MAX_STEP a step, in proportion to the smoothed
relative error of L0; the proportional part damps the loop (thresholds integrate λ, so integral control alone oscillates
and then diverges). If a batch leaves the band all the same, thresholds are moved back to the target at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

BAND = 0.10
"""Relative distance from the target at which thresholds are reset, so no step can run away."""

SMOOTHING = 0.9
"""Of the moving average of L0: one batch of 1024 tokens is good to about 1 %."""

INTEGRAL, PROPORTIONAL, MAX_STEP = 0.4, 15.0, 0.05
"""Gains per step, in log λ per log L0 (heuristic: settled within 100 steps on the development cells)."""

SPAN = 1e3
"""λ stays within this factor of its first estimate."""


@dataclass
class SparsityController:
    """λ for one SAE."""

    target: float
    start: float
    """First estimate of λ."""
    smoothed: float = field(init=False)
    integral: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.smoothed = self.target

    @property
    def error(self) -> float:
        """log(L0 / target), smoothed."""
        return math.log(max(self.smoothed, 1e-6) / self.target)

    @property
    def weight(self) -> float:
        """λ."""
        exponent = self.integral + PROPORTIONAL * self.error
        limit = math.log(SPAN)
        return self.start * math.exp(min(limit, max(-limit, exponent)))

    def update(self, l0: float) -> bool:
        """Take in the L0 of a batch. Returns whether it left the band, so that thresholds must be reset."""
        self.smoothed = SMOOTHING * self.smoothed + (1 - SMOOTHING) * l0
        step = min(MAX_STEP, max(-MAX_STEP, INTEGRAL * self.error))
        limit = math.log(SPAN)
        self.integral = min(limit, max(-limit, self.integral + step))
        return abs(math.log(max(l0, 1e-6) / self.target)) > BAND

    def reset(self) -> None:
        """Forget the excursion after thresholds were moved back."""
        self.smoothed = self.target
