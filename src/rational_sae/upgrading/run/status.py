"""What a job's folder says of itself, while the job runs and after it ended."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rational_sae.errors import OutputError
from rational_sae.report import read_report, read_sweep
from rational_sae.support.outputs import CHECKPOINT, LOG, REPORT, SWEEP_TABLE
from rational_sae.upgrading.run.checkpoint import Checkpoints
from rational_sae.upgrading.run.owner import is_running
from rational_sae.upgrading.run.same import stored_settings

State = Literal["running", "stopped", "finished"]

TAIL_BYTES = 1 << 16
"""Of log.jsonl, enough for the latest step's lines."""


@dataclass(frozen=True)
class Status:
    """Of one upgrade or pilot."""

    name: str
    state: State
    step: int
    """The latest in log.jsonl."""
    steps: int | None
    """How many there will be."""
    saved_step: int | None
    """Of the newest checkpoint."""
    seconds_since: float
    """Since the log last grew."""
    latest: dict[str, dict[str, Any]]
    """Row → what the log says of its latest step."""
    verdict: str = ""

    def line(self) -> str:
        """For people."""
        if self.state == "finished":
            return f"{self.name}: finished. {self.verdict}"
        saved = "nothing saved yet" if self.saved_step is None else f"step {self.saved_step} is saved"
        where = f"step {self.step}{f' of {self.steps}' if self.steps else ''}, {saved}"
        return f"{self.name}: {self.state} at {where}; last heard {self.seconds_since:.0f} s ago"

    def row_lines(self) -> list[str]:
        """One for each row's latest step."""
        return [
            f"  {row}: " + ", ".join(f"{key} {_number(value)}" for key, value in values.items())
            for row, values in self.latest.items()
        ]


def status(folder: Path) -> list[Status]:
    """Of an upgrade's folder, or of every pilot and cell that a sweep's folder has begun.

    Raises OutputError if there is neither.
    """
    if _is_job(folder):
        return [_status(folder, folder.name)]
    cells = [path for kind in ("pilots", "cells") for path in sorted((folder / kind).glob("*")) if _is_job(path)]
    if not cells and not (folder / SWEEP_TABLE).exists():
        raise OutputError(f"{folder} holds no upgrade and no sweep", "name the --out folder of one")
    return [_status(path, f"{path.parent.name}/{path.name}") for path in cells]


def cells_line(folder: Path) -> str:
    """How many cells of a sweep are finished; "" for an upgrade's folder."""
    if not (folder / SWEEP_TABLE).exists():
        return ""
    found = read_sweep(folder)
    done, failed = len(found["cells"]), len(found["failed"])
    of = done + failed + len(found["missing"])
    return f"{done} of {of} cells finished{f', {failed} failed' if failed else ''}"


def how_to_resume(out: Path, command: Sequence[str]) -> str:
    """What to tell somebody whose job was interrupted. command: its arguments, which are quoted for a shell."""
    step = Checkpoints(out / CHECKPOINT).newest_step()
    if (out / REPORT).exists():
        return f"interrupted; {out} is finished all the same"
    if step is None:
        return "interrupted before anything was saved; run the same command again"
    of = stored_settings(out).get("steps")
    return f"interrupted at step {step}{f' of {of}' if of else ''}, which is saved; go on with: {shlex.join(command)}"


def _is_job(folder: Path) -> bool:
    return (folder / REPORT).exists() or (folder / CHECKPOINT).exists()


def _status(folder: Path, name: str) -> Status:
    steps = stored_settings(folder).get("steps")
    latest = _latest(folder / LOG)
    step = max((values.pop("step") for values in latest.values()), default=0)
    if (folder / REPORT).exists():
        return Status(name, "finished", step, steps, None, 0.0, {}, read_report(folder)["verdict"])
    saved = Checkpoints(folder / CHECKPOINT).newest_step()
    state: State = "running" if is_running(folder) else "stopped"
    try:
        since = max(0.0, time.time() - (folder / LOG).stat().st_mtime)
    except OSError:
        since = 0.0
    return Status(name, state, max(step, saved or 0), steps, saved, since, latest)


def _latest(log: Path) -> dict[str, dict[str, Any]]:
    """Row → its last line; a line that is being written, or was cut, is passed over."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return {}
    found: dict[str, dict[str, Any]] = {}
    for line in lines:
        try:
            values = json.loads(line)
            found[values.pop("row")] = values
        except (ValueError, KeyError, AttributeError, TypeError):
            continue
    return found


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
