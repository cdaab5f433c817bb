"""Where this package keeps what it can fetch or compute again."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_dir() -> Path:
    """The cache folder: the environment variable `RSAE_CACHE`, or the platform's own place."""
    return Path(os.environ.get("RSAE_CACHE") or platformdirs.user_cache_dir("rational-sae"))
