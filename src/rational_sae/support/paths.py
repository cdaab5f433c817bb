"""Where this package keeps what it can fetch or compute again, and what went wrong."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_dir() -> Path:
    """The cache folder: the environment variable `RSAE_CACHE`, or the platform's own place."""
    return Path(os.environ.get("RSAE_CACHE") or platformdirs.user_cache_dir("rational-sae"))


def log_dir() -> Path:
    """Where tracebacks of unexpected errors go: `log` in `RSAE_CACHE`, or the platform's own place."""
    own = os.environ.get("RSAE_CACHE")
    return Path(own) / "log" if own else Path(platformdirs.user_log_dir("rational-sae"))
