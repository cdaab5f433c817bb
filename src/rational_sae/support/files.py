"""Files that are whole or not there: written aside, flushed to the disk, then renamed."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from rational_sae.errors import OutputError, RationalSAEError

try:
    import fcntl
except ImportError:  # Windows has no flock: two runs into one folder are then not noticed
    fcntl = None


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


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock file; the system lets go of it when this process ends, however it ends.

    Raises OutputError if another process holds it.
    """
    with path.open("ab") as file:
        if not _try_lock(file):
            raise OutputError(f"{what} is being written by another process", "wait for it, or choose another --out")
        yield


def is_locked(path: Path) -> bool:
    """Whether a process holds a lock file now."""
    try:
        with path.open("rb") as file:
            return not _try_lock(file)
    except OSError:
        return False


def _try_lock(file: BinaryIO) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
