"""Who writes into a job's folder: one process at a time, by a lock that ends with it however it ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from rational_sae.support.locks import is_locked, locked, require_unlocked
from rational_sae.support.outputs import CHECKPOINT, LOCK


@contextlib.contextmanager
def held(out: Path) -> Iterator[None]:
    """Hold a job's folder, which is made where it is missing.

    Raises OutputError if another process holds it, OSError if it cannot be written.
    """
    (out / CHECKPOINT).mkdir(parents=True, exist_ok=True)
    with locked(out / CHECKPOINT / LOCK, str(out)):
        yield


def is_running(out: Path) -> bool:
    """Whether a process is writing into a job's folder now."""
    return is_locked(out / CHECKPOINT / LOCK)


def require_free(out: Path) -> None:
    """Raise OutputError if a process is writing there: asked before any work is done, and without making anything."""
    require_unlocked(out / CHECKPOINT / LOCK, str(out))
