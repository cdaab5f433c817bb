"""Ctrl-C and SIGTERM, kept out of the places where they would leave a job half changed."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


_noted: list[int] | None = None
"""Inside `noted`: the signals heard so far."""


@contextlib.contextmanager
def noted() -> Iterator[list[int]]:
    """Signals are only noted, for a loop that asks; `shielded` blocks inside add theirs. Only in the main thread."""
    global _noted
    if threading.current_thread() is not threading.main_thread():
        yield []
        return
    _noted = heard = []
    before = {number: signal.signal(number, lambda got, _frame: heard.append(got)) for number in SIGNALS}
    try:
        yield heard
    finally:
        _noted = None
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """Hold a signal back until the block is done, then raise KeyboardInterrupt. Only in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []
    before = {number: signal.signal(number, lambda got, _frame: heard.append(got)) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
    if heard and _noted is not None:
        _noted.extend(heard)
    elif heard:
        raise KeyboardInterrupt


def end_like_ctrl_c() -> None:
    """Make SIGTERM raise KeyboardInterrupt in the main thread, as Ctrl-C does."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
