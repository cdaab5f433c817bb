"""Checkpoints on disk: tensors as safetensors, the rest as JSON, both named by their hash in a manifest.

folder/step-00000120/tensors.safetensors, state.json, manifest.json. A checkpoint is written aside, flushed to the disk
and renamed, so it is there whole or not at all. The one before is kept: if the newest does not match its manifest (a
failing disk, a cut copy), it is the one to go on with. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rational_sae.files import flush_file, flush_folder, sha256_of, write_whole

SCHEMA = 1
TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
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
    """Names of checkpoints that did not match their manifest, and were removed."""

    def save(self, step: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Write one, and drop all but the newest two. Raises OSError or SafetensorError; what was there stays."""
        partial = self.folder / f".partial-{os.getpid()}"
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, partial / TENSORS)
            flush_file(partial / TENSORS)
            write_whole(partial / STATE, json.dumps(state))
            hashes = {name: sha256_of(partial / name) for name in (TENSORS, STATE)}
            manifest = {"schema": SCHEMA, "step": step, "sha256": hashes}
            write_whole(partial / MANIFEST, json.dumps(manifest | {"checksum": _checksum(manifest)}, indent=1))
            target = self.folder / f"step-{step:08d}"
            shutil.rmtree(target, ignore_errors=True)
            partial.rename(target)
            flush_folder(self.folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        for old in self._folders()[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)

    def newest(self) -> Checkpoint | None:
        """The newest one that matches its manifest; damaged ones are removed, and named in `damaged`."""
        for folder in reversed(self._folders()):
            found = _read(folder)
            if found is not None:
                return found
            self.damaged.append(folder.name)
            shutil.rmtree(folder, ignore_errors=True)
        return None

    def newest_step(self) -> int | None:
        """Step of the newest one, unchecked."""
        folders = self._folders()
        return int(folders[-1].name.removeprefix("step-")) if folders else None

    def _folders(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("step-*") if path.name.removeprefix("step-").isdigit())


def _read(folder: Path) -> Checkpoint | None:
    """A checkpoint, or None if anything in it is not what the manifest says."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        checksum = manifest.pop("checksum")
        if checksum != _checksum(manifest) or manifest["schema"] != SCHEMA:
            return None
        if any(sha256_of(folder / name) != manifest["sha256"][name] for name in (TENSORS, STATE)):
            return None
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        return Checkpoint(manifest["step"], load_file(folder / TENSORS), state)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError):
        return None


def _checksum(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
