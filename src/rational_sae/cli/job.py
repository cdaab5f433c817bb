"""An upgrade job as a command runs it: its folder, and the run with what it says at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rational_sae.cli import terminal
from rational_sae.cli.following import follow

if TYPE_CHECKING:
    from rational_sae.upgrading.run.folder import JobFolder


def folder_of(
    out: Path, *, resume: bool, overwrite: bool, track: Sequence[Any] = (), **options: Any
) -> JobFolder | None:
    """The job's folder, in the process that writes; None in the others."""
    if resume and overwrite:
        raise typer.BadParameter("--resume goes on and --overwrite starts again: give one of them")
    from rational_sae.support import distributed
    from rational_sae.upgrading.run.folder import JobFolder
    from rational_sae.upgrading.run.trackers import require, tracker

    distributed.start()
    if not distributed.leads():
        return None
    for name in track:
        require(name)
    return JobFolder(
        out,
        resume=resume,
        overwrite=overwrite,
        trackers=lambda step, settings: [tracker(name, out, step, settings) for name in track],
        **options,
    )


def run(
    settings: Any,
    folder: JobFolder | None,
    again: Sequence[str],
    *,
    accept_implausible: bool = False,
    full: bool = False,
) -> None:
    """Run a job into its folder and show the result. again: the command that goes on after an interruption; full:
    every row and difference is shown."""
    if folder is None:
        return follow(settings, accept_implausible=accept_implausible)
    from rational_sae.support import distributed
    from rational_sae.upgrading.run.status import how_to_resume

    out = folder.out
    try:
        with folder:
            found = _result(settings, folder, accept_implausible=accept_implausible)
            folder.finish()
        distributed.stop()
    except KeyboardInterrupt:
        terminal.say(how_to_resume(out, again), always=True)
        raise typer.Exit(130) from None
    terminal.show_report(found, full=full)
    terminal.say(f"wrote {out}/sae, {out}/report.html and {out}/report.json")


def _result(settings: Any, folder: JobFolder, *, accept_implausible: bool) -> Any:
    """The report of the job: written now, or by an earlier run of the same job."""
    from rational_sae.report import read_report
    from rational_sae.support import distributed
    from rational_sae.upgrading import job
    from rational_sae.upgrading.run.write import write

    if distributed.leaders_json(folder.resume and folder.finished):
        folder.check_finished(settings)
        terminal.say(f"{folder.out} was finished before")
        return read_report(folder.out)
    with terminal.bars() as bars:
        done = job.run(settings, accept_implausible=accept_implausible, progress=bars, keeper=folder)
    return write(done, folder.out, overwrite=True)
