"""Where the jobs of a sweep run: a file an engine, and which there are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Protocol

from rational_sae.errors import SettingsError
from rational_sae.support.progress import Progress
from rational_sae.sweep.task import Outcome, Task
from rational_sae.upgrading.harvest import harvest

MOST_WORKERS = 1024
"""Each is a process with the model's activations at hand; no machine has as many cores."""

EngineName = Literal["local", "ray"]


class Engine(Protocol):
    """Does tasks somewhere."""

    def run(self, tasks: list[Task], progress: Progress) -> Iterator[Outcome]:
        """Outcomes as tasks end, in any order."""
        ...


def engine_named(name: EngineName, workers: int = 1) -> Engine:
    """Who does the tasks. Raises MissingExtraError if Ray is not installed."""
    if not 1 <= workers <= MOST_WORKERS:
        raise SettingsError(f"{workers} workers were asked for", f"ask for 1 to {MOST_WORKERS}")
    if name == "ray":
        from rational_sae.sweep.engines.ray_engine import RayEngine

        return RayEngine(workers)
    if workers > 1:
        from rational_sae.sweep.engines.pool import Pool

        return Pool(workers)
    from rational_sae.sweep.engines.here import Here

    return Here(harvest)
