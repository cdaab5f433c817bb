"""A result in place of an earlier one, all of it or nothing.

It is written into a folder of ours inside `--out` and renamed into place from there, so no other file system and no
folder above takes part. An earlier result is kept whole in another folder of ours until the new one is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from rational_sae.errors import OutputError
from rational_sae.support.files import flush_folder
from rational_sae.support.outputs.kinds import Kind
from rational_sae.support.outputs.names import EARLIER, PARTIAL
from rational_sae.support.outputs.tree import drop_empty, files_of, move, reason_of, remove


@contextlib.contextmanager
def written(out: Path, kind: Kind) -> Iterator[Path]:
    """An empty folder inside `out` to write a result into. It is put in place at the end, or nothing is changed.

    Raises OutputError with a line if something cannot be written.
    """
    made = not out.exists()
    try:
        recover(out, kind)
        remove(out, {PARTIAL: kind.begun})
        (out / PARTIAL).mkdir(parents=True, exist_ok=True)
        yield out / PARTIAL
        install(out, kind)
    except OSError as error:
        raise OutputError(
            f"{out}: cannot be written ({reason_of(error)})", "free some space or name another"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            remove(out, {PARTIAL: kind.begun})
            if made:
                out.rmdir()


def install(out: Path, kind: Kind) -> None:
    """Put what lies in PARTIAL in place; an earlier result goes once that is done, and is put back if it fails.

    Raises OSError.
    """
    new = {out / path.relative_to(out / PARTIAL) for path in files_of(out / PARTIAL, kind.names)}
    whole = is_whole(out, kind)
    set_aside(out, kind)
    before = set(files_of(out, kind.names))
    try:
        move(out / PARTIAL, out, kind.names)
    except OSError:
        for path in new - before:
            path.unlink(missing_ok=True)
        if whole:
            put_back(out, kind)
        raise
    for path in set(files_of(out, kind.names)) - new:  # of a result that was never whole
        path.unlink()
    drop_empty(out, kind.names)
    flush_folder(out)
    tidy(out, kind)


def set_aside(out: Path, kind: Kind) -> None:
    """Move a whole result into EARLIER, where one is; an older one there goes. Raises OSError."""
    if is_whole(out, kind):
        if is_whole(out / EARLIER, kind):
            remove(out, {EARLIER: kind.names})
        try:
            move(out, out / EARLIER, kind.names)
        except OSError:
            recover(out, kind)
            raise


def put_back(out: Path, kind: Kind) -> None:
    """Bring a result back that was set aside, in place of what lies there now. Raises OSError."""
    if is_whole(out / EARLIER, kind):
        remove(out, kind.names)
        _bring_back(out, kind)


def recover(out: Path, kind: Kind) -> None:
    """Undo a `set_aside` in whose middle the process ended: then both places hold a part. Raises OSError."""
    if is_whole(out, kind) and (out / EARLIER).is_dir() and not is_whole(out / EARLIER, kind):
        _bring_back(out, kind)


def tidy(out: Path, kind: Kind) -> None:
    """Remove what is of no more use once a whole result is there. Raises OSError."""
    if is_whole(out, kind):
        remove(out, {PARTIAL: kind.begun})
        if is_whole(out / EARLIER, kind):
            remove(out, {EARLIER: kind.names})


def _bring_back(out: Path, kind: Kind) -> None:
    move(out / EARLIER, out, kind.names)
    drop_empty(out, {EARLIER: kind.names})


def is_whole(folder: Path, kind: Kind) -> bool:
    return any((folder / name).is_file() for name in kind.whole)
