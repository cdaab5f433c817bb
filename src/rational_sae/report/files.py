"""report.json and report.html in a job's folder: written whole or not at all, and checked when read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rational_sae.errors import OutputError
from rational_sae.report.page import render, render_sweep
from rational_sae.report.schema import check_report, check_sweep, to_plain
from rational_sae.support.files import write_whole
from rational_sae.support.outputs import PAGE, REPORT, SWEEP_PAGE, SWEEP_TABLE
from rational_sae.support.safe_text import json_text


def write_report(report: Mapping[str, Any], folder: Path) -> None:
    """Writes report.json, then report.html.

    The numbers go first and unchecked: a report that cannot be drawn (OutputError) is still on disk.
    """
    _write(Path(folder) / REPORT, json_text(to_plain(report), indent=1, allow_nan=False))
    write_page(report, folder)


def write_page(report: Mapping[str, Any], folder: Path) -> None:
    """Writes report.html alone. Raises OutputError."""
    _write(Path(folder) / PAGE, render(report))


def write_sweep(found: Mapping[str, Any], folder: Path) -> None:
    """Writes sweep.json, then sweep.html. Raises OutputError if a file cannot be written."""
    _write(Path(folder) / SWEEP_TABLE, json_text(to_plain(found), indent=1, allow_nan=False))
    write_sweep_page(found, folder)


def write_sweep_page(found: Mapping[str, Any], folder: Path) -> None:
    """Writes sweep.html alone. Raises OutputError."""
    _write(Path(folder) / SWEEP_PAGE, render_sweep(found))


def read_report(folder: Path) -> dict[str, Any]:
    """The report in a folder; OutputError where it is missing, unreadable, malformed or of another schema."""
    path = Path(folder) / REPORT
    return check_report(_read(path), str(path))


def read_sweep(folder: Path) -> dict[str, Any]:
    """The summary in a sweep's folder; OutputError where it is missing, unreadable or not a sweep's."""
    path = Path(folder) / SWEEP_TABLE
    return check_sweep(_read(path), str(path))


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise OutputError(f"{path} does not exist", "name the --out folder of a finished job") from error
    except OSError as error:
        raise OutputError(f"{path} cannot be read ({error.strerror})", "check the folder's permissions") from error
    except (ValueError, RecursionError) as error:
        raise OutputError(f"{path} is not JSON ({error})", "rerun the job that wrote it") from error


def _write(path: Path, text: str) -> None:
    """The whole text or the old file. Raises OutputError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # backslashreplace: a path with undecodable bytes must not cost the user the report.
        write_whole(path, text.encode("utf-8", errors="backslashreplace"))
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror})", "free some space or choose another --out"
        ) from error
