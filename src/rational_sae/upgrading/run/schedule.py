"""When a checkpoint is written."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from rational_sae.errors import SettingsError
from rational_sae.upgrading.settings import MOST_STEPS

EVERY_STEPS, EVERY_SECONDS = 1000, 120.0
"""A checkpoint is written at whichever comes first."""

MOST_OF_TIME = 0.05
"""Share of the time that checkpoints written by the clock may take: large SAEs get them further apart."""


@dataclass(frozen=True)
class Interval:
    """When checkpoints are written: at whichever comes first."""

    steps: int = EVERY_STEPS
    seconds: float = EVERY_SECONDS

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= MOST_STEPS or not (math.isfinite(self.seconds) and self.seconds >= 0):
            raise SettingsError(
                f"checkpoints every {self.steps} steps or {self.seconds:g} seconds",
                f"give 1 to {MOST_STEPS} steps, and seconds that are finite and not negative",
            )


class Schedule:
    """What was saved last, and whether it is time again."""

    def __init__(self, interval: Interval) -> None:
        self.interval = interval
        self.saved: int | None = None
        """The step of the latest checkpoint."""
        self._at = self._cost = 0.0

    def begin(self, saved: int | None) -> None:
        """Training begins, after this step of a checkpoint if it goes on."""
        self.saved, self._at = saved, time.monotonic()

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint is to be written after this step."""
        waited = time.monotonic() - self._at
        by_the_clock = waited >= max(self.interval.seconds, self._cost / MOST_OF_TIME)
        return by_the_clock or step - (self.saved or 0) >= self.interval.steps

    def wrote(self, step: int, seconds: float) -> None:
        """One was written, in so many seconds."""
        self.saved, self._at, self._cost = step, time.monotonic(), seconds
