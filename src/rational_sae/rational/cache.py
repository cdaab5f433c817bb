"""Fits kept on disk as JSON, checked again when they are read."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from rational_sae.errors import FitError
from rational_sae.rational.certificate import certify
from rational_sae.rational.grids import near_poles
from rational_sae.rational.minimax import fit
from rational_sae.rational.result import LATER, TARGET_FIELDS, Fit
from rational_sae.rational.table import shipped
from rational_sae.rational.targets import AnyTarget, FunctionTarget, Target
from rational_sae.rational.targets import target as named_target
from rational_sae.support.paths import cache_dir

SAME_ERROR = 1e-6
"""Largest relative difference between the stored error and the one measured on reading."""


def cached_fit(target: AnyTarget | str, type: tuple[int, int] = (9, 8)) -> Fit:  # noqa: A002
    """`fit(target, type)`, read from the shipped table or the cache where a sound copy lies there.

    A copy of another form or version, of another target, or whose error is not what it says is fitted
    again. A cache that cannot be written is no failure: the fit is returned all the same.
    """
    target = named_target(target) if isinstance(target, str) else target
    if isinstance(target, FunctionTarget):  # a callable has no name to keep it under
        return fit(target, type)
    path = fit_path(target, type)
    for look in (lambda: shipped().get((target, (type[0], type[1]))), lambda: _read(path)):
        stored = look()
        if stored is not None and _sound(stored, target, type):
            return stored
    result = fit(target, type)
    _write(path, result)
    return result


def fit_path(target: Target, type: tuple[int, int]) -> Path:  # noqa: A002
    """Where a fit is kept; every number of the problem is in the name."""
    # Slope and κ are left out where they are the plain gate's: such fits were kept before there were any.
    values = {name: getattr(target, name) for name in TARGET_FIELDS}
    numbers = [
        f"{name if name in LATER else ''}{value:.17g}" for name, value in values.items() if value != LATER.get(name)
    ]
    parts = [target.name, *numbers, *(str(degree) for degree in type)]
    return cache_dir() / "fits" / ("_".join(parts) + ".json")


def _read(path: Path) -> Fit | None:
    try:
        return Fit.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, FitError):
        return None


def _sound(stored: Fit, target: Target, type: tuple[int, int]) -> bool:  # noqa: A002
    if stored.target != target or stored.type != tuple(type):
        return False
    fractions = stored.partial_fractions
    found = certify(stored, target, None if fractions is None else near_poles(fractions.roots))
    return abs(found.error - stored.error) <= SAME_ERROR * stored.error


def _write(path: Path, result: Fit) -> None:
    """Whole or not at all: a temporary file beside the final one, renamed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    except OSError:
        return
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(result.to_json(), file)
        os.replace(name, path)
    except OSError:
        Path(name).unlink(missing_ok=True)
