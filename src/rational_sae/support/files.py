"""Files that are whole or not there: written aside, flushed to the disk, then renamed."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import Any

from rational_sae.errors import RationalSAEError


def write_whole(path: Path, content: str | bytes) -> None:
    """The content under a temporary name, flushed and renamed over an earlier file. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # never through what may lie there
        with temporary.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        flush_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def read_yaml(path: Path, kind: type[RationalSAEError], remedy: str) -> Any:
    """What a YAML file holds, in plain types. Raises `kind` if it cannot be read, or is not YAML (see `remedy`)."""
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise kind(f"{path} cannot be read ({error.strerror or error})", "check the path") from error
    # Beside its own errors the reader lets through those of what it builds: dates that are none, lists without end.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise kind(f"{path} is not YAML ({error})", remedy) from error


def flush_folder(path: Path) -> None:
    """Put a folder's names on the disk, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def flush_file(path: Path) -> None:
    """Put a file's content on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sha256_of(path: Path) -> str:
    """Of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
