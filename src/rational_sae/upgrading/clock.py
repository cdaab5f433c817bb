"""How long each stage of a job takes."""

from __future__ import annotations

import time

from rational_sae.support.progress import Progress


class Clock:
    """Seconds per stage, told to the progress display as well."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.timing = progress, {}
        self._name, self._since = "", 0.0

    def stage(self, name: str, total: int | None = None, done: int = 0) -> None:
        """Go over to a stage, if it is not the present one."""
        if name == self._name:
            return
        self.stop()
        self._name, self._since = name, time.perf_counter()
        self.progress.stage(name, total, done)

    def advance(self, amount: int = 1, total: int | None = None) -> None:
        self.progress.advance(amount, total)

    def stop(self) -> None:
        if self._name:
            self.timing[self._name] = self.timing.get(self._name, 0.0) + time.perf_counter() - self._since
        self._name = ""
