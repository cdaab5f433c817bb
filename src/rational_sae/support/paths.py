"""Paths as users write them, and where this package keeps what it can fetch or compute again, and what went wrong."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def at_home(path: str | Path) -> Path:
    """A path with `~` as the home folder; as it is where there is no such home.

    >>> at_home("here/too") == Path("here", "too")
    True
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:  # the home of nobody
        return Path(path)


def cache_dir() -> Path:
    """The cache folder: the environment variable `RSAE_CACHE`, or the platform's own place."""
    return Path(os.environ.get("RSAE_CACHE") or platformdirs.user_cache_dir("rational-sae"))


def log_dir() -> Path:
    """Where tracebacks of unexpected errors go: `log` in `RSAE_CACHE`, or the platform's own place."""
    own = os.environ.get("RSAE_CACHE")
    return Path(own) / "log" if own else Path(platformdirs.user_log_dir("rational-sae"))
