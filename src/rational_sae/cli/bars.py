"""Progress for people, on stderr: bars on a terminal, plain lines in a log."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from rational_sae.support.safe_text import name_of, redact

EVERY_SECONDS = 15.0
"""Between two lines of one stage."""


def shown(console: Console) -> Bars | Lines:
    """Bars if the console is a terminal, else lines."""
    return Bars(console) if console.is_terminal else Lines(console)


class Bars:
    """A `Progress` of the upgrade job, drawn with rich; one line a stage."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        if kind is None:
            self._finish()
        self._progress.stop()

    def stage(self, name: str, total: int | None = None, done: int = 0) -> None:
        self._finish()
        self._task = self._progress.add_task(name_of(redact(name)), total=total, completed=done)

    def advance(self, amount: int = 1) -> None:
        if self._task is not None:
            self._progress.advance(self._task, amount)

    def _finish(self) -> None:
        if self._task is not None:
            task = next(task for task in self._progress.tasks if task.id == self._task)
            self._progress.update(self._task, total=max(1, task.completed), completed=max(1, task.completed))
        self._task = None


class Lines:
    """A `Progress` for a log file: a line when a stage begins, one every EVERY_SECONDS, and one when it ends."""

    def __init__(self, console: Console, every: float = EVERY_SECONDS) -> None:
        self._console, self._every = console, every
        self._name, self._total, self._before, self._done = "", None, 0, 0
        self._began = self._told = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        if kind is None:
            self._finish()

    def stage(self, name: str, total: int | None = None, done: int = 0) -> None:
        self._finish()
        self._name, self._total, self._before, self._done = name_of(redact(name)), total, done, done
        self._began = self._told = time.monotonic()
        self._say(self._name)

    def advance(self, amount: int = 1) -> None:
        self._done += amount
        now = time.monotonic()
        if now - self._told < self._every:
            return
        self._told = now
        if self._total:
            share = self._done / self._total
            left = (now - self._began) * max(0, self._total - self._done) / max(1, self._done - self._before)
            self._say(f"{self._name}: {self._done} of {self._total} ({share:.0%}), about {left:.0f} s left")
        else:
            self._say(f"{self._name}: {self._done}")

    def _finish(self) -> None:
        if self._name:
            self._say(f"{self._name}: done in {time.monotonic() - self._began:.1f} s")
        self._name = ""

    def _say(self, line: str) -> None:
        self._console.print(f"{time.strftime('%H:%M:%S')} {line}", markup=False, highlight=False, soft_wrap=True)
