"""How a long job tells what it is doing."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Shows a job's stages. The command line draws bars; the default is silent."""

    def stage(self, name: str, total: int | None = None, done: int = 0) -> None:
        """A stage begins or goes on. total: its steps, if known; done: those that were done before."""

    def advance(self, amount: int = 1, total: int | None = None) -> None:
        """Steps of the current stage are done. total: how many there are, where that is known only now."""


class Silent:
    """No progress shown."""

    def stage(self, name: str, total: int | None = None, done: int = 0) -> None: ...

    def advance(self, amount: int = 1, total: int | None = None) -> None: ...
