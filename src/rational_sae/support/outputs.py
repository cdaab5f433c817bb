"""Where results go. What this program writes is known by name, and nothing else is removed, moved or replaced.

A place is checked before the work that fills it. A result is written into a folder of ours inside `--out` and renamed
into place from there, so no other file system and no folder above takes part. An earlier result is kept whole in
another folder of ours until the new one is.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Union

from rational_sae.errors import OutputError
from rational_sae.support.files import flush_folder, write_whole

Tree = Mapping[str, Union["Tree", bytes, None]]
"""Names in a folder: None is a file, bytes one that holds them, a tree a folder. `#` stands for digits. Earlier names
are taken away last and put in place last."""

PARTIAL = ".rsae-partial"
"""What is being written."""
EARLIER = ".rsae-earlier"
"""The result that is being replaced, until the new one is whole."""

CONFIG, WEIGHTS, PLAIN, CARD = "cfg.json", "sae_weights.safetensors", "sae.safetensors", "README.md"
REPORT, PAGE, SETTINGS, LOG = "report.json", "report.html", "settings.yaml", "log.jsonl"
CHECKPOINT, LOCK = "checkpoint", "lock"
MANIFEST, STATE, TENSORS = "manifest.json", "state.json", "tensors.safetensors"
SWEEP_TABLE, SWEEP_PAGE, PILOTS, CELLS = "sweep.json", "sweep.html", "pilots", "cells"
THEORY = "theory.json"
THEORY_PICTURES = tuple(f"theory-{name}.png" for name in ("sign", "relu", "gates", "converse"))

TEMPORARY = re.compile(r"\.(.+)\.\d+\.tmp")
"""What `write_whole` writes first."""
LONGEST_HEADER = 100_000_000
"""Bytes: safetensors' own bound."""

LONGEST_LINE = 1 << 16

PAGE_MARK = '<meta name="generator" content="rational-sae">'
CARD_MARK = "<!-- written by rational-sae -->"
"""What tells our card from a README.md that somebody wrote."""
WEIGHTS_MARK = {"written_by": "rational-sae"}
"""In the header of an SAE's weights: cfg.json and sae_weights.safetensors are other tools' names too."""

SAE_FILES: Tree = {CONFIG: None, PLAIN: None, WEIGHTS: None, CARD: CARD_MARK.encode()}
SAE_NAMES: Tree = {**SAE_FILES, PARTIAL: SAE_FILES, EARLIER: SAE_FILES}
STEP_NAMES: Tree = {MANIFEST: None, STATE: None, TENSORS: None}
DAMAGED_NAMES: Tree = {"damaged-step-#": STEP_NAMES, "damaged-step-#.#": STEP_NAMES}
CHECKPOINT_NAMES: Tree = {LOCK: None, "step-#": STEP_NAMES, ".partial-#": STEP_NAMES, **DAMAGED_NAMES}
ROWS = ("sae", "identity", "control-native", "control-jumprelu")
RESULT_NAMES: Tree = {REPORT: None, PAGE: None, SETTINGS: None, LOG: None, **dict.fromkeys(ROWS, SAE_NAMES)}
THEORY_NAMES: Tree = {THEORY: None, **dict.fromkeys(THEORY_PICTURES)}


@dataclass(frozen=True)
class Kind:
    """A kind of result."""

    command: str
    """That writes it."""
    names: Tree
    """Of a whole result."""
    whole: tuple[str, ...]
    """Files of which one is there if, and only if, all of a result is."""
    lies_in: Callable[[Path], bool]
    """Whether a folder holds such a result, or the beginning of one. Raises OSError."""
    running: Tree = field(default_factory=dict)
    """Names of what is kept while it is made."""
    remedy: str = "or give --overwrite: it replaces a result and leaves other files alone"

    @property
    def all_names(self) -> Tree:
        return {**self.names, PARTIAL: self.names, EARLIER: self.names, **self.running}


def files_of(folder: Path, names: Tree) -> Iterator[Path]:
    """The files below a folder that are named, in the order of the names. Links to folders are not followed.

    Raises OSError.
    """
    for path, what in _named(folder, names):
        mode = path.lstat().st_mode
        if isinstance(what, Mapping):
            if stat.S_ISDIR(mode):
                yield from files_of(path, what)
        elif (stat.S_ISREG(mode) or stat.S_ISLNK(mode)) and _holds(path, what):
            yield path


def remove(folder: Path, names: Tree) -> None:
    """Remove the files that are named, and the folders that are named where nothing else is left. Raises OSError."""
    for path in reversed(list(files_of(folder, names))):
        path.unlink(missing_ok=True)
    _drop_empty(folder, names)


def move(folder: Path, target: Path, names: Tree) -> None:
    """Rename the files that are named into another folder of the same file system. Raises OSError."""
    for path in reversed(list(files_of(folder, names))):
        new = target / path.relative_to(folder)
        new.parent.mkdir(parents=True, exist_ok=True)
        path.replace(new)
    _drop_empty(folder, names)


def set_aside(out: Path, kind: Kind) -> None:
    """Move a whole result into EARLIER, where one is; an older one there goes. Raises OSError."""
    if _is_whole(out, kind):
        if _is_whole(out / EARLIER, kind):
            remove(out, {EARLIER: kind.names})
        try:
            move(out, out / EARLIER, kind.names)
        except OSError:
            recover(out, kind)
            raise


def put_back(out: Path, kind: Kind) -> None:
    """Bring a result back that was set aside, in place of what lies there now. Raises OSError."""
    if _is_whole(out / EARLIER, kind):
        remove(out, kind.names)
        _bring_back(out, kind)


def recover(out: Path, kind: Kind) -> None:
    """Undo a `set_aside` in whose middle the process ended: then both places hold a part. Raises OSError."""
    if _is_whole(out, kind) and (out / EARLIER).is_dir() and not _is_whole(out / EARLIER, kind):
        _bring_back(out, kind)


def tidy(out: Path, kind: Kind) -> None:
    """Remove what is of no more use once a whole result is there. Raises OSError."""
    if _is_whole(out, kind):
        remove(out, {PARTIAL: kind.names})
        if _is_whole(out / EARLIER, kind):
            remove(out, {EARLIER: kind.names})


def install(out: Path, kind: Kind) -> None:
    """Put what lies in PARTIAL in place; an earlier result goes once that is done, and is put back if it fails.

    Raises OSError.
    """
    new = {out / path.relative_to(out / PARTIAL) for path in files_of(out / PARTIAL, kind.names)}
    whole = _is_whole(out, kind)
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
    _drop_empty(out, kind.names)
    flush_folder(out)
    tidy(out, kind)


@contextlib.contextmanager
def written(out: Path, kind: Kind) -> Iterator[Path]:
    """An empty folder inside `out` to write a result into. It is put in place at the end, or nothing is changed.

    Raises OutputError with a line if something cannot be written.
    """
    made = not out.exists()
    try:
        recover(out, kind)
        remove(out, {PARTIAL: kind.names})
        (out / PARTIAL).mkdir(parents=True, exist_ok=True)
        yield out / PARTIAL
        install(out, kind)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({_reason(error)})", "free some space or name another") from error
    finally:
        with contextlib.suppress(OSError):
            remove(out, {PARTIAL: kind.names})
            if made:
                out.rmdir()


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
        wrong = next(_in_the_way(out, kind.all_names, trusted=_is_upgrade(out)), None)
        if wrong is None and not ours:
            wrong = next((path for path, _ in _named(out, kind.all_names)), None)
        if wrong is not None:
            raise OutputError(
                f"{wrong} was not written by rsae {kind.command}, so it is not replaced",
                "move it, or choose another --out",
            )
    except OSError as error:
        raise OutputError(f"{out} cannot be used ({_reason(error)})", "choose another --out") from error


def check_sae_folder(folder: Path) -> None:
    """Raise OutputError unless an SAE can be written here: nothing is there, or only an SAE that this program wrote."""
    try:
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder}: is a file", "name another folder")
        _check_writable(folder)
        if not folder.exists():
            return
        wrong = set(_in_the_way(folder, SAE_NAMES, trusted=True))
        named = {path for path, _ in _named(folder, SAE_NAMES)} - wrong
        others = sorted(path.name for path in folder.iterdir() if path not in named)
        if others:
            raise OutputError(f"{folder}: holds other files ({others[0]})", "name another folder")
        if wrong or not is_our_sae(folder):
            raise OutputError(f"{folder}: holds an SAE that this program did not write", "name another folder")
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({_reason(error)})", "name another folder") from error


def check_elsewhere(source: str, out: Path, names: Tree = RESULT_NAMES) -> None:
    """Raise OutputError if a local source lies where a result would replace it."""
    for part in ("", ROWS[0]):  # an upgrade's folder stands for the SAE in it
        # No path, none below `out`, the home of nobody, or a loop of links.
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            below = (Path(source).expanduser() / part).resolve(strict=True).relative_to(out.resolve()).parts
            if not below or _key(names, below[0]) is not None:
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
        raise OutputError(f"{path} cannot be written ({_reason(error)})", "name another file") from error


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
        raise OutputError(f"{path} cannot be written ({_reason(error)})", "name another file") from error


def _key(names: Tree, name: str) -> str | None:
    """Which of the names this is."""
    if name in names:
        return name
    numbered = (key for key in names if "#" in key)
    return next((key for key in numbered if re.fullmatch(re.escape(key).replace(r"\#", r"\d+"), name)), None)


def _named(folder: Path, names: Tree) -> list[tuple[Path, Tree | bytes | None]]:
    """What in a folder has one of the names, in their order; what `write_whole` left when it was killed, too."""
    try:
        there = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    order, found = list(names), []
    for name in there:
        key = _key(names, name)
        if key is not None:
            found.append((order.index(key), folder / name, names[key]))
            continue
        temporary = TEMPORARY.fullmatch(name)
        key = temporary and _key(names, temporary[1])
        if key and not isinstance(names[key], Mapping):
            found.append((order.index(key), folder / name, None))
    return [(path, what) for _, path, what in sorted(found, key=lambda one: one[0])]


def _holds(path: Path, mark: bytes | None) -> bool:
    return mark is None or (path.is_file() and mark in path.read_bytes())


def _drop_empty(folder: Path, names: Tree) -> None:
    for path, what in _named(folder, names):
        if isinstance(what, Mapping) and path.is_dir() and not path.is_symlink():
            _drop_empty(path, what)
            with contextlib.suppress(OSError):  # somebody's files are in it
                path.rmdir()


def _bring_back(out: Path, kind: Kind) -> None:
    move(out / EARLIER, out, kind.names)
    _drop_empty(out, {EARLIER: kind.names})


def _is_whole(folder: Path, kind: Kind) -> bool:
    return any((folder / name).is_file() for name in kind.whole)


def _in_the_way(folder: Path, names: Tree, *, trusted: bool) -> Iterator[Path]:
    """What has a name of ours and is not ours: a folder for a file, a file or a link for a folder, another file system,
    a file that holds something else, a card or, unless `trusted`, an SAE without our mark."""
    for path, what in _named(folder, names):
        mode, known = path.lstat().st_mode, trusted or path.name in (PARTIAL, EARLIER)
        about = LOOKED_INTO.get(path.name)
        if isinstance(what, Mapping):
            wrong = (
                not stat.S_ISDIR(mode)
                or (what is SAE_NAMES and not known and not is_our_sae(path))
                or (what is not CHECKPOINT_NAMES and path.stat().st_dev != folder.stat().st_dev)
            )
        else:
            wrong = not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)) or not _holds(path, what)
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


def _reason(error: OSError) -> str:
    return error.strerror or " ".join(str(error).split()) or type(error).__name__


def is_our_sae(folder: Path) -> bool:
    """Whether this program wrote the SAE in a folder, or none is there. Raises OSError."""
    if not any((folder / name).exists() for name in (CONFIG, WEIGHTS, PLAIN)):
        return True
    if _holds(folder / CARD, CARD_MARK.encode()):
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


def _json(path: Path) -> dict[str, Any]:
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


def _is_upgrade(folder: Path) -> bool:
    settings = _json(folder / REPORT).get("settings")
    return isinstance(settings, dict) and "teacher" in settings


def _is_begun(folder: Path, names: Tree) -> bool:
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
    REPORT: lambda path: _json(path).keys() >= {"schema", "rows", "verdict"},
    LOG: _is_log,
    PAGE: _is_page,
    SWEEP_TABLE: lambda path: _json(path).keys() >= {"cells", "ratios", "failed", "missing"},
    SWEEP_PAGE: _is_page,
    THEORY: lambda path: "exponents" in _json(path),
}
"""Files with names that others use as well, and what tells ours."""


def _holds_job(folder: Path) -> bool:
    return (
        _is_checkpoint(folder / CHECKPOINT)
        or _is_settings(folder / SETTINGS)
        or _is_upgrade(folder)
        or _is_begun(folder, RESULT_NAMES)
    )


def _holds_sweep(folder: Path) -> bool:
    if LOOKED_INTO[SWEEP_TABLE](folder / SWEEP_TABLE):
        return True
    for kind in (PILOTS, CELLS):
        if (folder / kind).is_dir():
            inside = list((folder / kind).iterdir())
            if not inside or any("chosen" in _json(path) or _holds_job(path) for path in inside):
                return True
            if any(path.is_dir() and not any(path.iterdir()) for path in inside):
                return True
    return False


SAE = Kind("export", SAE_FILES, (CONFIG, PLAIN), is_our_sae)
UPGRADE = Kind("upgrade", RESULT_NAMES, (REPORT,), _holds_job, {CHECKPOINT: CHECKPOINT_NAMES})
EVALUATION = Kind(
    "evaluate",
    {REPORT: None, PAGE: None},
    (REPORT,),
    lambda out: LOOKED_INTO[REPORT](out / REPORT) and not _holds_job(out),
)
SWEEP = Kind(
    "sweep",
    {SWEEP_TABLE: None, SWEEP_PAGE: None, PILOTS: {}, CELLS: {}},
    (SWEEP_TABLE,),
    _holds_sweep,
    remedy="or give --resume to go on with a sweep there",
)
THEORIES = Kind(
    "theory", THEORY_NAMES, (THEORY,), lambda out: "exponents" in _json(out / THEORY) or _is_begun(out, THEORY_NAMES)
)
