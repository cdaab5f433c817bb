"""A new job's files in a folder that may hold an earlier result, and how the folder becomes again what it was."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import yaml

from rational_sae.support.files import write_whole
from rational_sae.support.outputs import LOG, PARTIAL, RESULT_NAMES, SETTINGS, UPGRADE, put_back, remove, set_aside
from rational_sae.upgrading.run.checkpoint import Checkpoints


class Beginning:
    """Of one job. resume: a job was asked for that goes on, and none was there, so what else lies there is kept."""

    def __init__(self, out: Path, checkpoints: Checkpoints, *, resume: bool) -> None:
        self.out, self.checkpoints, self.resume = out, checkpoints, resume
        self._made = not out.exists()
        self._wrote_settings = False

    def make(self, asked: dict[str, Any]) -> None:
        """Set a result aside, remove what an unfinished job left, and write settings.yaml. Raises OSError."""
        self._wrote_settings = not self.resume or not (self.out / SETTINGS).exists()
        set_aside(self.out, UPGRADE)
        remove(self.out, {name: what for name, what in RESULT_NAMES.items() if name != SETTINGS})
        remove(self.out, {PARTIAL: RESULT_NAMES})
        write_whole(self.out / SETTINGS, yaml.safe_dump(asked, sort_keys=False))

    def undo(self) -> None:
        """As if there had been no job: only a result that was set aside is put back."""
        with contextlib.suppress(OSError):
            self.checkpoints.clear(keep_damaged=self.resume)
            remove(self.out, {LOG: None} | ({SETTINGS: None} if self._wrote_settings else {}))
            put_back(self.out, UPGRADE)
            if self._made:
                self.out.rmdir()
