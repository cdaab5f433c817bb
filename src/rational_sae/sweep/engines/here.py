"""Tasks one after the other, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rational_sae.sae.model import SAE
from rational_sae.support.progress import Progress
from rational_sae.sweep.task import Get, Outcome, Task, harvest_key, work
from rational_sae.upgrading.harvest import Harvest
from rational_sae.upgrading.settings import Settings


class Here:
    """Keeps the latest harvest, and hands it to all tasks that read alike."""

    def __init__(self, harvest: Get) -> None:
        self._harvest = harvest
        self._key: tuple[Any, ...] = ()
        self._held: Harvest | None = None

    def run(self, tasks: list[Task], progress: Progress) -> Iterator[Outcome]:
        for task in tasks:
            yield work(task, self.get, progress)

    def get(self, settings: Settings, teacher: SAE) -> Harvest:
        """The harvest for resolved settings."""
        key = harvest_key(settings)
        if self._held is None or key != self._key:
            self._held = None  # freed before the next is made
            self._key, self._held = key, self._harvest(settings, teacher)
        return self._held
