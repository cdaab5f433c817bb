"""Progress for people, on stderr: bars on a terminal and in a notebook, plain lines in a log of the command line."""

from __future__ import annotations

import contextlib
import html
import time
from types import TracebackType
from typing import Any, Self

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

from rational_sae.support.progress import Progress as Shown
from rational_sae.support.progress import Silent
from rational_sae.support.safe_text import name_of, redact

EVERY_SECONDS = 15.0
"""Between two lines of one stage."""

REDRAWN_SECONDS = 0.2
"""Between two drawings of a notebook's bar: each is a message to the browser."""


def shown(console: Console) -> Bars | Lines:
    """Bars if the console is a terminal, else lines."""
    return Bars(console) if console.is_terminal else Lines(console)


def watched() -> contextlib.AbstractContextManager[Shown]:
    """For functions that people call: bars where somebody looks (a terminal, a notebook), nothing in a log."""
    console = Console(stderr=True)
    if console.is_jupyter:
        return Notebook()
    return Bars(console) if console.is_terminal else contextlib.nullcontext(Silent())


def spoken(seconds: float) -> str:
    """A duration as people say it.

    >>> spoken(42.3), spoken(250), spoken(7300)
    ('42 s', '4 min', '2 h 2 min')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


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

    def advance(self, amount: int = 1, total: int | None = None) -> None:
        if self._task is not None:
            self._progress.update(self._task, advance=amount, total=total)

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

    def advance(self, amount: int = 1, total: int | None = None) -> None:
        self._done += amount
        self._total = total or self._total
        now = time.monotonic()
        if now - self._told < self._every:
            return
        self._told = now
        if self._total:
            share = self._done / self._total
            left = (now - self._began) * max(0, self._total - self._done) / max(1, self._done - self._before)
            self._say(f"{self._name}: {self._done} of {self._total} ({share:.0%}), about {spoken(left)} left")
        else:
            self._say(f"{self._name}: {self._done}")

    def _finish(self) -> None:
        if self._name:
            self._say(f"{self._name}: done in {time.monotonic() - self._began:.1f} s")
        self._name = ""

    def _say(self, line: str) -> None:
        self._console.print(f"{time.strftime('%H:%M:%S')} {line}", markup=False, highlight=False, soft_wrap=True)


class Notebook:
    """A `Progress` below a notebook's cell: one bar a stage, drawn by the browser, without ipywidgets."""

    def __init__(self, every: float = REDRAWN_SECONDS) -> None:
        self._every = every
        self._handle: Any = None
        self._name, self._total, self._done = "", None, 0
        self._began = self._drawn = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        self._finish(whole=kind is None)

    def stage(self, name: str, total: int | None = None, done: int = 0) -> None:
        from IPython.display import HTML, display

        self._finish()
        self._name, self._total, self._done = name_of(redact(name)), total, done
        self._began = self._drawn = time.monotonic()
        self._handle = display(HTML(self._page()), display_id=True)

    def advance(self, amount: int = 1, total: int | None = None) -> None:
        self._done += amount
        self._total = total or self._total
        if time.monotonic() - self._drawn >= self._every:
            self._draw()

    def _finish(self, *, whole: bool = True) -> None:
        if self._handle is not None:
            if whole:
                self._total = self._done = max(1, self._done)
            self._draw()
        self._handle = None

    def _draw(self) -> None:
        from IPython.display import HTML

        self._drawn = time.monotonic()
        if self._handle is not None:
            self._handle.update(HTML(self._page()))

    def _page(self) -> str:
        known = f' max="{self._total}" value="{self._done}"' if self._total else ""
        count = f"{self._done} of {self._total}, " if self._total else f"{self._done}, " if self._done else ""
        return f"<progress{known}></progress> {html.escape(self._name)}: {count}{time.monotonic() - self._began:.0f} s"
