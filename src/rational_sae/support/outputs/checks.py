"""Whether something can be written where the user says: asked before the work that makes it."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from rational_sae.errors import OutputError
from rational_sae.support.files import write_whole
from rational_sae.support.outputs.kinds import Kind
from rational_sae.support.outputs.names import (
    CHECKPOINT,
    CHECKPOINT_NAMES,
    EARLIER,
    PARTIAL,
    RESULT_NAMES,
    ROWS,
    SAE_NAMES,
    WEIGHTS,
    Tree,
)
from rational_sae.support.outputs.ours import LOOKED_INTO, is_our_sae, is_upgrade
from rational_sae.support.outputs.tree import holds, key_of, named_in, reason_of


def check_out(out: Path, kind: Kind, *, resume: bool = False, overwrite: bool = False) -> None:
    """Raise OutputError unless `out` can take a result: empty, or holding a job to go on with (`resume`), or a result
    that may be replaced (`overwrite`); and writable."""
    try:
        _check_writable(out)
        if not out.exists() or not any(out.iterdir()):
            return
        ours = kind.lies_in(out)
        if resume and not ours:
            raise OutputError(f"{out} holds no job of rsae {kind.command} to resume", "choose another --out")
        if not resume and not overwrite:
            if (out / CHECKPOINT).exists() and ours:
                raise OutputError(
                    f"{out} holds an unfinished job", "give --resume to go on, or --overwrite to start again"
                )
            raise OutputError(f"{out} exists and is not empty", f"choose another --out, {kind.remedy}")
        wrong = next(_in_the_way(out, kind.all_names, trusted=is_upgrade(out)), None)
        if wrong is None and not ours:
            wrong = next((path for path, _ in named_in(out, kind.all_names)), None)
        if wrong is not None:
            raise OutputError(
                f"{wrong} was not written by rsae {kind.command}, so it is not replaced",
                "move it, or choose another --out",
            )
    except OSError as error:
        raise OutputError(f"{out} cannot be used ({reason_of(error)})", "choose another --out") from error


def check_sae_folder(folder: Path) -> None:
    """Raise OutputError unless an SAE can be written here: nothing is there, or only an SAE that this program wrote."""
    try:
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder}: is a file", "name another folder")
        _check_writable(folder)
        if not folder.exists():
            return
        wrong = set(_in_the_way(folder, SAE_NAMES, trusted=True))
        named = {path for path, _ in named_in(folder, SAE_NAMES)} - wrong
        others = sorted(path.name for path in folder.iterdir() if path not in named)
        if others:
            raise OutputError(f"{folder}: holds other files ({others[0]})", "name another folder")
        if wrong or not is_our_sae(folder):
            raise OutputError(f"{folder}: holds an SAE that this program did not write", "name another folder")
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({reason_of(error)})", "name another folder") from error


def check_elsewhere(source: str, out: Path, names: Tree = RESULT_NAMES) -> None:
    """Raise OutputError if a local source lies where a result would replace it."""
    for part in ("", ROWS[0]):  # an upgrade's folder stands for the SAE in it
        # No path, none below `out`, the home of nobody, or a loop of links.
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            below = (Path(source).expanduser() / part).resolve(strict=True).relative_to(out.resolve()).parts
            if not below or key_of(names, below[0]) is not None:
                raise OutputError(f"{source} lies where the result would replace it", "choose another --out")


def check_file(path: Path) -> None:
    """Raise OutputError if a file cannot be written here, without changing one that is there."""
    try:
        if path.is_dir():
            raise OutputError(f"{path} is a folder", "name a file")
        if not os.path.lexists(path):
            _check_writable(path.parent)
        elif not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({reason_of(error)})", "name another file") from error


def write_file(path: Path, content: str | bytes) -> None:
    """A file that somebody named: whole or not at all, through a link if it is one. Raises OutputError."""
    try:
        if path.exists() and not path.is_file():  # a pipe, or /dev/stdout
            with path.open("wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path.resolve(), content)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({reason_of(error)})", "name another file") from error


def _in_the_way(folder: Path, names: Tree, *, trusted: bool) -> Iterator[Path]:
    """What has a name of ours and is not ours: a folder for a file, a file or a link for a folder, another file system,
    a file that holds something else, a card or, unless `trusted`, an SAE without our mark."""
    for path, what in named_in(folder, names):
        mode, known = path.lstat().st_mode, trusted or path.name in (PARTIAL, EARLIER)
        about = LOOKED_INTO.get(path.name)
        if isinstance(what, Mapping):
            wrong = (
                not stat.S_ISDIR(mode)
                or (what is SAE_NAMES and not known and not is_our_sae(path))
                or (what is not CHECKPOINT_NAMES and path.stat().st_dev != folder.stat().st_dev)
            )
        else:
            wrong = not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)) or not holds(path, what)
            wrong = wrong or (about is not None and not about(path))
        if wrong:
            yield path
        elif isinstance(what, Mapping):
            yield from _in_the_way(path, what, trusted=known)


def _check_writable(folder: Path) -> None:
    """Raise OSError unless a result can be written into a folder that is there or can be made."""
    here = Path(os.path.abspath(folder))
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        (here / PARTIAL / ROWS[-1] / PARTIAL / WEIGHTS).lstat()  # a name that is too long is noticed here
    while not os.path.lexists(here):
        here = here.parent
    if not here.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    with tempfile.TemporaryFile(dir=here):
        pass
