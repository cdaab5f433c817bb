"""Checkpoints on disk: tensors as safetensors, the rest as JSON, both named by their hash in a manifest.

folder/step-00000120/tensors.safetensors, state.json, manifest.json. A checkpoint is written aside, flushed to the disk
and renamed, so it is there whole or not at all. The one before is kept: if the newest does not match its manifest (a
cut copy, a flipped bit), it is moved aside to damaged-step-00000120/, and the one before is the one to go on with. One
that the system cannot read is an error, and stays where it is. Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rational_sae.errors import OutputError
from rational_sae.support.files import flush_file, flush_folder, sha256_of, write_whole
from rational_sae.support.outputs import (
    CHECKPOINT_NAMES,
    DAMAGED_NAMES,
    LOCK,
    MANIFEST,
    STATE,
    STEP_BEGUN_NAMES,
    STEP_NAMES,
    TENSORS,
    move,
    remove,
)

SCHEMA = 1
KEPT = 2
"""The newest and the one before."""


@dataclass(frozen=True)
class Checkpoint:
    """A sound checkpoint, read."""

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]


@dataclass
class Checkpoints:
    """The checkpoints of one job."""

    folder: Path
    damaged: list[str] = field(default_factory=list)
    """Names of checkpoints that did not match their manifest, and were moved aside."""

    def save(self, step: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Write one, and drop all but the newest two. Raises OSError or SafetensorError; what was there stays."""
        partial = self.folder / f".partial-{os.getpid()}"
        try:
            remove(self.folder, {".partial-#": STEP_BEGUN_NAMES})  # of processes that were killed, too
            partial.mkdir(parents=True, exist_ok=True)
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, partial / TENSORS)
            flush_file(partial / TENSORS)
            write_whole(partial / STATE, json.dumps(state))
            hashes = {name: sha256_of(partial / name) for name in (TENSORS, STATE)}
            manifest = {"schema": SCHEMA, "step": step, "sha256": hashes}
            write_whole(partial / MANIFEST, json.dumps(manifest | {"checksum": _checksum(manifest)}, indent=1))
            target = self.folder / f"step-{step:08d}"
            remove(self.folder, {target.name: STEP_NAMES})
            if target.exists():  # somebody's files are in it
                move(partial, target, STEP_NAMES)
            else:
                partial.rename(target)
            flush_folder(self.folder)
        finally:
            with contextlib.suppress(OSError):
                remove(self.folder, {partial.name: STEP_BEGUN_NAMES})
        for old in self._folders()[:-KEPT]:
            with contextlib.suppress(OSError):
                remove(self.folder, {old.name: STEP_NAMES})

    def newest(self) -> Checkpoint | None:
        """The newest one that matches its manifest; damaged ones are moved aside, and named in `damaged`.

        Raises OutputError, and changes nothing, if one cannot be read.
        """
        with self._told():
            for folder in reversed(self._folders()):
                found = _read(folder)
                if found is not None:
                    return found
                self.damaged.append(folder.name)
                self._set_aside(folder)
        return None

    def newest_step(self) -> int | None:
        """Step of the newest one, unchecked. Raises OutputError if the folder cannot be read."""
        with self._told():
            folders = self._folders()
        return int(folders[-1].name.removeprefix("step-")) if folders else None

    def begin(self, *, keep_damaged: bool) -> None:
        """Remove what another job left, so that nothing of it is gone on with. Raises OSError."""
        kept = {LOCK: None} | (dict(DAMAGED_NAMES) if keep_damaged else {})
        remove(self.folder, {name: what for name, what in CHECKPOINT_NAMES.items() if name not in kept})

    def clear(self, *, keep_damaged: bool = False) -> None:
        """Remove all of them, and the folder if nothing else is in it. Raises OSError."""
        names = {name: what for name, what in CHECKPOINT_NAMES.items() if not keep_damaged or name not in DAMAGED_NAMES}
        remove(self.folder.parent, {self.folder.name: names})

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"{error.filename or self.folder} cannot be read ({error.strerror or error})",
                "nothing was removed; mend that, then --resume",
            ) from error

    def _folders(self) -> list[Path]:
        """Folders of checkpoints, the newest last; one that holds none of their files is somebody else's."""
        try:
            found = [path for path in self.folder.iterdir() if path.name.removeprefix("step-").isdecimal()]
        except FileNotFoundError:
            return []
        found = [path for path in found if path.name.startswith("step-") and _is_ours(path)]
        return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))

    def _set_aside(self, folder: Path) -> None:
        names = (f"damaged-{folder.name}{f'.{number}' if number else ''}" for number in itertools.count())
        target = next(self.folder / name for name in names if not os.path.lexists(self.folder / name))
        move(folder, target, STEP_NAMES)
        remove(self.folder, {folder.name: {}})


def _is_ours(folder: Path) -> bool:
    return folder.is_dir() and any(name in os.listdir(folder) for name in STEP_NAMES)


def _read(folder: Path) -> Checkpoint | None:
    """A checkpoint, or None if anything in it is not what the manifest says. Raises OSError if that cannot be seen."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        checksum = manifest.pop("checksum")
        if checksum != _checksum(manifest):
            return None
        if manifest["schema"] != SCHEMA:
            raise OutputError(f"{folder} is of another version of rational-sae", "resume with the one that wrote it")
        if any(sha256_of(folder / name) != manifest["sha256"][name] for name in (TENSORS, STATE)):
            return None
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None
    try:
        return Checkpoint(manifest["step"], load_file(folder / TENSORS), json.loads((folder / STATE).read_bytes()))
    except SafetensorError as error:  # the bytes were as written a moment ago
        raise OSError(errno.EIO, " ".join(str(error).split()), str(folder / TENSORS)) from error


def _checksum(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
