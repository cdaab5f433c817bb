"""One pilot or cell of a sweep, as a piece of work that any process can do, and do again.

What is finished is not done twice, and what was begun goes on where it was, so a task may be lost at any moment and be
given to another process that sees the same files.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rational_sae.data.reading import Reading
from rational_sae.errors import OutputError, RationalSAEError
from rational_sae.formats import load
from rational_sae.report import read_report
from rational_sae.sae.model import SAE
from rational_sae.support.outputs import REPORT, UPGRADE, remove, write_file
from rational_sae.support.progress import Progress, Silent
from rational_sae.sweep.pilot import best_rates, pilot
from rational_sae.upgrading import job
from rational_sae.upgrading.harvest import Harvest
from rational_sae.upgrading.run.folder import JobFolder
from rational_sae.upgrading.run.same import require_same, stored_settings
from rational_sae.upgrading.run.schedule import Interval
from rational_sae.upgrading.run.write import write
from rational_sae.upgrading.settings import Settings, completed

SHARED = (*Reading.model_fields, "vectors", "eval_tokens", "batch_tokens", "seed")
"""Settings that decide a harvest, beside its number of training tokens."""

Get = Callable[[Settings, SAE], Harvest]
"""Gives a harvest for resolved settings and their teacher."""


@dataclass(frozen=True)
class Task:
    """A cell, or a pilot if it has rates."""

    name: str
    settings: Settings
    """Resolved."""
    folder: Path
    rates: tuple[float, ...] = ()
    interval: Interval | None = None

    @property
    def choice(self) -> Path:
        """A pilot's result."""
        return self.folder.with_name(self.folder.name + ".json")


@dataclass(frozen=True)
class Outcome:
    """How a task ended."""

    name: str
    line: str
    """For people."""
    failed: str = ""
    """Why there is no result."""
    refused: bool = False
    """Whether the sweep's folder is of another sweep, so that all must end."""


class _Named:
    """Progress with the task's name in front of every stage."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress, self._name = progress, name

    def stage(self, name: str, total: int | None = None, done: int = 0) -> None:
        self._progress.stage(f"{self._name}: {name}", total, done)

    def advance(self, amount: int = 1, total: int | None = None) -> None:
        self._progress.advance(amount, total)


def harvest_key(settings: Settings) -> tuple[Any, ...]:
    """What two upgrades must have in common to share a harvest. settings: resolved."""
    return (settings.tokens_to_harvest, *(getattr(settings, name) for name in SHARED))


def work(task: Task, get: Get, progress: Progress | None = None) -> Outcome:
    """Do a task, or what is missing of it. What is refused is an outcome too."""
    try:
        done = _pilot if task.rates else _cell
        return Outcome(task.name, done(task, get, _Named(progress or Silent(), task.name)))
    except OutputError as error:
        return Outcome(task.name, f"{task.name}: refused: {error}", str(error), refused=True)
    except RationalSAEError as error:
        return Outcome(task.name, f"{task.name}: failed: {error}", str(error))


def _cell(task: Task, get: Get, progress: Progress) -> str:
    if (task.folder / REPORT).exists():
        require_same(task.folder, stored_settings(task.folder), task.settings.to_store())
        read_report(task.folder)
        with JobFolder(task.folder, resume=True) as keeper:
            keeper.finish()
        return f"{task.name}: finished before"
    shared = get(task.settings, load(task.settings.teacher))
    with JobFolder(task.folder, resume=True, interval=task.interval) as keeper:
        done = job.run(task.settings, shared=shared, progress=progress, keeper=keeper)
        report = write(done, task.folder, overwrite=True)
        keeper.finish()
    return f"{task.name}: {report['verdict']}"


def _pilot(task: Task, get: Get, progress: Progress) -> str:
    """Which learning rates each row gets, into a file of its own."""
    asked = {"settings": task.settings.to_store(), "rates": list(task.rates)}
    kept = _chosen(task.choice)
    if kept and {"settings": completed(kept["settings"]), "rates": kept["rates"]} != asked:
        raise OutputError(f"{task.choice} is of other settings", "choose another --out")
    if not kept:
        teacher = load(task.settings.teacher)
        shared = get(task.settings, teacher)
        with JobFolder(task.folder, resume=True, interval=task.interval) as keeper:
            tried = pilot(task.settings, teacher, shared, task.rates, progress, keeper)
        kept = {**asked, "validation_fvu": tried, "chosen": best_rates(tried)}
        write_file(task.choice, json.dumps(kept, indent=1))
    with contextlib.suppress(OSError):
        remove(task.folder.parent, {task.folder.name: UPGRADE.all_names})
    return f"{task.name}: {', '.join(f'{row} ×{rate:g}' for row, rate in kept['chosen'].items())}"


def _chosen(path: Path) -> dict[str, Any]:
    """A pilot's result, or nothing if it has none yet. Raises OutputError if something else is there."""
    try:
        found = json.loads(path.read_bytes())
        if found.keys() >= {"settings", "rates", "chosen"}:
            return found
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise OutputError(f"{path} cannot be read ({error.strerror})", "mend that, then --resume") from error
    except (ValueError, AttributeError, RecursionError):
        pass
    raise OutputError(f"{path} is no result of a pilot", "move it, or choose another --out")
