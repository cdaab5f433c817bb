"""An upgrade into a folder that can be made to die after a step, as a process does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rational_sae.upgrading.job import run as upgrade
from rational_sae.upgrading.run import write
from rational_sae.upgrading.run.folder import JobFolder
from rational_sae.upgrading.run.schedule import Interval
from rational_sae.upgrading.settings import Settings


class DiedError(Exception):
    """Stands for the end of a process."""


def run(settings: Settings, out: Path, *, dies_at: int = 0, **options: Any) -> dict[str, Any]:
    """The report. dies_at: the step after which DiedError is raised, 0 for none; options: of the JobFolder."""
    with JobFolder(out, interval=Interval(steps=4), **options) as folder:
        if dies_at:
            stepped = folder.stepped

            def dying(number: int) -> None:
                stepped(number)
                if number == dies_at:
                    raise DiedError

            folder.stepped = dying  # type: ignore[method-assign]
        report = write.write(upgrade(settings, keeper=folder), out, overwrite=True)
        folder.finish()
    return report
