"""Files and folders that have one of the names: found, removed, moved. Nothing else is touched."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from rational_sae.support.outputs.names import TEMPORARY, Tree


def files_of(folder: Path, names: Tree) -> Iterator[Path]:
    """The files below a folder that are named, in the order of the names. Links to folders are not followed.

    Raises OSError.
    """
    for path, what in named_in(folder, names):
        mode = path.lstat().st_mode
        if isinstance(what, Mapping):
            if stat.S_ISDIR(mode):
                yield from files_of(path, what)
        elif (stat.S_ISREG(mode) or stat.S_ISLNK(mode)) and holds(path, what):
            yield path


def remove(folder: Path, names: Tree) -> None:
    """Remove the files that are named, and the folders that are named where nothing else is left. Raises OSError."""
    for path in reversed(list(files_of(folder, names))):
        path.unlink(missing_ok=True)
    drop_empty(folder, names)


def move(folder: Path, target: Path, names: Tree) -> None:
    """Rename the files that are named into another folder of the same file system. Raises OSError."""
    for path in reversed(list(files_of(folder, names))):
        new = target / path.relative_to(folder)
        new.parent.mkdir(parents=True, exist_ok=True)
        path.replace(new)
    drop_empty(folder, names)


def named_in(folder: Path, names: Tree) -> list[tuple[Path, Tree | bytes | None]]:
    """What in a folder has one of the names, in their order; what `write_whole` left when it was killed, too."""
    try:
        there = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    order, found = list(names), []
    for name in there:
        key = key_of(names, name)
        if key is not None:
            found.append((order.index(key), folder / name, names[key]))
            continue
        temporary = TEMPORARY.fullmatch(name)
        key = temporary and key_of(names, temporary[1])
        if key and not isinstance(names[key], Mapping):
            found.append((order.index(key), folder / name, None))
    return [(path, what) for _, path, what in sorted(found, key=lambda one: one[0])]


def key_of(names: Tree, name: str) -> str | None:
    """Which of the names this is."""
    if name in names:
        return name
    patterns = (key for key in names if "#" in key or "?" in key)
    return next((key for key in patterns if re.fullmatch(_expression(key), name)), None)


def _expression(key: str) -> str:
    return re.escape(key).replace(r"\#", r"\d+").replace(r"\?", "[A-Za-z0-9]")


def holds(path: Path, mark: bytes | None) -> bool:
    return mark is None or (path.is_file() and mark in path.read_bytes())


def drop_empty(folder: Path, names: Tree) -> None:
    for path, what in named_in(folder, names):
        if isinstance(what, Mapping) and path.is_dir() and not path.is_symlink():
            drop_empty(path, what)
            with contextlib.suppress(OSError):  # somebody's files are in it
                path.rmdir()


def reason_of(error: OSError) -> str:
    """What the system says of a failure."""
    return error.strerror or " ".join(str(error).split()) or type(error).__name__
