"""What tells a file or folder of ours from one of the same name that somebody else wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rational_sae.support.outputs.names import (
    CARD,
    CARD_MARK,
    CELLS,
    CHECKPOINT,
    CHECKPOINT_NAMES,
    CONFIG,
    EARLIER,
    LOG,
    PAGE,
    PAGE_MARK,
    PARTIAL,
    PILOTS,
    PLAIN,
    REPORT,
    RESULT_NAMES,
    SETTINGS,
    SWEEP_PAGE,
    SWEEP_TABLE,
    THEORY,
    WEIGHTS,
    WEIGHTS_MARK,
    Tree,
)
from rational_sae.support.outputs.tree import files_of, holds

LONGEST_HEADER = 100_000_000
"""Bytes: safetensors' own bound."""

LONGEST_LINE = 1 << 16


def is_our_sae(folder: Path) -> bool:
    """Whether this program wrote the SAE in a folder, or none is there. Raises OSError."""
    if not any((folder / name).exists() for name in (CONFIG, WEIGHTS, PLAIN)):
        return True
    if holds(folder / CARD, CARD_MARK.encode()):
        return True
    weights = [
        path for place in (folder, folder / EARLIER) for name in (WEIGHTS, PLAIN) if (path := place / name).exists()
    ]
    return bool(weights) and all(_is_marked(path) for path in weights)


def _is_marked(weights: Path) -> bool:
    stated = _header(weights)
    return stated.items() >= WEIGHTS_MARK.items() or '"format": "rational-sae"' in str(stated.get("config", ""))


def _header(path: Path) -> dict[str, Any]:
    """The metadata of a safetensors file, or nothing."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            found = json.loads(file.read(min(size, LONGEST_HEADER))).get("__metadata__")
    except (FileNotFoundError, IsADirectoryError, ValueError, AttributeError):
        return {}
    return found if isinstance(found, dict) else {}


def json_of(path: Path) -> dict[str, Any]:
    """What a JSON file holds, or nothing. Raises OSError if it cannot be read."""
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_settings(path: Path) -> bool:
    import yaml

    try:
        found = yaml.safe_load(path.read_bytes())
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, yaml.YAMLError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.keys() >= {"teacher", "steps", "eval_tokens"}


def _is_checkpoint(folder: Path) -> bool:
    """Also an empty one: the process ended at once."""
    if not folder.is_dir() or folder.is_symlink():
        return False
    return not any(folder.iterdir()) or any(files_of(folder, CHECKPOINT_NAMES))


def is_upgrade(folder: Path) -> bool:
    settings = json_of(folder / REPORT).get("settings")
    return isinstance(settings, dict) and "teacher" in settings


def is_begun(folder: Path, names: Tree) -> bool:
    """Whether the process ended while a result was put in place."""
    for place in (folder / PARTIAL, folder / EARLIER):
        if place.is_dir() and not place.is_symlink() and (not any(place.iterdir()) or any(files_of(place, names))):
            return True
    return False


def _is_log(path: Path) -> bool:
    with path.open("rb") as file:
        first = file.readline(LONGEST_LINE)
    try:
        return not first or json.loads(first).keys() >= {"row", "step"}
    except (ValueError, AttributeError, RecursionError):
        return False


def _is_page(path: Path) -> bool:
    """Pages of earlier versions had no mark: those beside their numbers count."""
    with path.open("rb") as file:
        head = file.read(LONGEST_LINE)
    beside = path.with_suffix(".json")
    return PAGE_MARK.encode() in head or (beside.is_file() and LOOKED_INTO[beside.name](beside))


LOOKED_INTO: dict[str, Callable[[Path], bool]] = {
    SETTINGS: lambda path: _is_settings(path),
    REPORT: lambda path: json_of(path).keys() >= {"schema", "rows", "verdict"},
    LOG: _is_log,
    PAGE: _is_page,
    SWEEP_TABLE: lambda path: json_of(path).keys() >= {"cells", "ratios", "failed", "missing"},
    SWEEP_PAGE: _is_page,
    THEORY: lambda path: "exponents" in json_of(path),
}
"""Files with names that others use as well, and what tells ours."""


def holds_job(folder: Path) -> bool:
    return (
        _is_checkpoint(folder / CHECKPOINT)
        or _is_settings(folder / SETTINGS)
        or is_upgrade(folder)
        or is_begun(folder, RESULT_NAMES)
    )


def holds_sweep(folder: Path) -> bool:
    if LOOKED_INTO[SWEEP_TABLE](folder / SWEEP_TABLE):
        return True
    for kind in (PILOTS, CELLS):
        if (folder / kind).is_dir():
            inside = list((folder / kind).iterdir())
            if not inside or any("chosen" in json_of(path) or holds_job(path) for path in inside):
                return True
            if any(path.is_dir() and not any(path.iterdir()) for path in inside):
                return True
    return False
