"""The sweep: pilots, then cells; upgrades at one hook share a harvest; what is finished is never done again, and what
was begun goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rational_sae.errors import OutputError, RationalSAEError
from rational_sae.formats import load
from rational_sae.report import read_report, write_sweep
from rational_sae.support.outputs import SWEEP, SWEEP_TABLE, check_out
from rational_sae.support.progress import Progress
from rational_sae.sweep.engines import Engine, engine_named
from rational_sae.sweep.plan import Plan
from rational_sae.sweep.summary import summary
from rational_sae.sweep.task import Outcome, Task, harvest_key
from rational_sae.upgrading.run.schedule import Interval
from rational_sae.upgrading.settings import Settings


def sweep(
    plan: Plan,
    out: Path,
    progress: Progress,
    *,
    resume: bool = False,
    interval: Interval | None = None,
    engine: Engine | None = None,
    tell: Callable[[str], None] = lambda _line: None,
) -> dict[str, Any]:
    """Run every cell of a plan into out/cells/NAME, and write sweep.json and sweep.html first and after each.

    interval: between checkpoints of a cell or pilot. engine: who does the tasks; default: this process. tell: hears
    one line a cell. A cell that is refused is noted, and the others go on. Raises OutputError if `out` holds something
    and `resume` is not given, holds no sweep, or cells of other settings.
    """
    check_out(out, SWEEP, resume=resume)
    resolved = {name: plan.settings(name) for name in plan.cells}
    failed: dict[str, str] = {}
    for name, settings in list(resolved.items()):
        try:
            resolved[name] = settings.resolved(load(settings.teacher))
        except RationalSAEError as error:
            failed[name] = str(error)
            del resolved[name]
    order = sorted(resolved, key=lambda name: list(map(str, harvest_key(resolved[name]))))
    if not (out / SWEEP_TABLE).exists():  # so that its status can say how many there are
        _summarise(plan, order, failed, {}, out)
    engine = engine or engine_named("local")
    pilots = [
        Task(f"pilot {name}", resolved[name], out / "pilots" / name, plan.rates, interval)
        for name in (order if plan.rates else [])
        if plan.cells[name].pilot
    ]
    chosen: dict[str, dict[str, float]] = {}
    for outcome in engine.run(pilots, progress):
        _accept(outcome)
        if outcome.failed:
            raise RationalSAEError(outcome.line, "mend it, or choose another pilot cell")
    of_group: dict[str, dict[str, float]] = {}
    for task in pilots:
        name = task.name.removeprefix("pilot ")
        chosen[name] = json.loads(task.choice.read_text())["chosen"]
        of_group.setdefault(_group(task.settings), chosen[name])
    cells = []
    for name in order:
        rates = (chosen.get(name) or of_group.get(_group(resolved[name]), {})) | resolved[name].rates
        settings = resolved[name].model_copy(update={"rates": rates})
        cells.append(Task(name, settings, out / "cells" / name, interval=interval))
    for outcome in engine.run(cells, progress):
        _accept(outcome)
        if outcome.failed:
            failed[outcome.name] = outcome.failed
        tell(outcome.line)
        _summarise(plan, order, failed, chosen, out)
    return _summarise(plan, order, failed, chosen, out)


def _summarise(
    plan: Plan, order: list[str], failed: dict[str, str], chosen: dict[str, dict[str, float]], out: Path
) -> dict[str, Any]:
    """What is finished so far, in out/sweep.json and out/sweep.html."""
    folders = {name: out / "cells" / name for name in order}
    reports = {name: read_report(folder) for name, folder in folders.items() if (folder / "report.json").exists()}
    found = summary(plan, reports, failed, chosen)
    write_sweep(found, out)
    return found


def _accept(outcome: Outcome) -> None:
    """Raise OutputError if the folder is of another sweep."""
    if outcome.refused:
        raise OutputError(outcome.failed)


def _group(settings: Settings) -> str:
    """Model and family: what shares learning rates."""
    return f"{settings.model} {load(settings.teacher).metadata.family}"
