"""Lock files, which the system lets go of when their process ends, however it ends: none is ever stale."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import lock_descriptor

from rational_sae.errors import OutputError


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock file, which is made where it is missing and stays.

    Raises OutputError if another process holds it, OSError if it cannot be opened.
    """
    with path.open("ab") as file:
        if not lock_descriptor(file.fileno(), blocking=False):
            raise _busy(what)
        yield


def require_unlocked(path: Path, what: str) -> None:
    """Raise OutputError if a process holds a lock file now. Nothing is made."""
    if is_locked(path):
        raise _busy(what)


def is_locked(path: Path) -> bool:
    """Whether a process holds a lock file now. Nothing is made or written, so other people's may be asked for."""
    try:
        with path.open("rb") as file:
            return not lock_descriptor(file.fileno(), blocking=False)
    except OSError:
        return False


def _busy(what: str) -> OutputError:
    return OutputError(f"{what} is being written by another process", "wait for it, or choose another --out")
