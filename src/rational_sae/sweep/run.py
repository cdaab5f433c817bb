"""The sweep: pilots, then cells; upgrades at one hook share a harvest; what is finished is never done again, and what
was begun goes on where it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rational_sae.errors import OutputError, RationalSAEError
from rational_sae.files import write_whole
from rational_sae.progress import Progress
from rational_sae.reading import Reading
from rational_sae.report import read_report, write_sweep
from rational_sae.sae import SAE
from rational_sae.sources import load
from rational_sae.sweep.pilot import best_rates, pilot
from rational_sae.sweep.plan import Plan
from rational_sae.sweep.summary import summary
from rational_sae.upgrade.folder import Interval, JobFolder, require_same, stored_settings
from rational_sae.upgrade.job import Harvest, harvest, upgrade
from rational_sae.upgrade.settings import Settings
from rational_sae.upgrade.write import REPORT, check_out, write

SHARED = (*Reading.model_fields, "eval_tokens", "batch_tokens", "seed")
"""Settings that decide a harvest, beside its number of training tokens."""


class _Named:
    """Progress with the cell's name in front of every stage."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress, self._name = progress, name

    def stage(self, name: str, total: int | None = None) -> None:
        self._progress.stage(f"{self._name}: {name}", total)

    def advance(self, amount: int = 1) -> None:
        self._progress.advance(amount)


class _Harvests:
    """The latest harvest, handed to every upgrade that reads alike."""

    def __init__(self) -> None:
        self._key: tuple[Any, ...] = ()
        self._held: Harvest | None = None

    def get(self, settings: Settings, teacher: SAE) -> Harvest:
        key = harvest_key(settings)
        if self._held is None or key != self._key:
            self._held = None  # freed before the next is made
            self._key, self._held = key, harvest(settings, teacher)
        return self._held


def harvest_key(settings: Settings) -> tuple[Any, ...]:
    """What two upgrades must have in common to share a harvest. settings: resolved."""
    tokens = settings.train_tokens or settings.steps * settings.batch_tokens
    return (tokens, *(getattr(settings, name) for name in SHARED))


def sweep(
    plan: Plan,
    out: Path,
    progress: Progress,
    *,
    resume: bool = False,
    interval: Interval | None = None,
    tell: Callable[[str], None] = lambda _line: None,
) -> dict[str, Any]:
    """Run every cell of a plan into out/cells/NAME, and write out/sweep.json and out/sweep.html after each.

    interval: between checkpoints of a cell or pilot. tell: hears one line a cell. A cell that is refused is noted, and
    the others go on. Raises OutputError if `out` holds something and `resume` is not given, or holds cells of other
    settings.
    """
    if not resume:
        check_out(out)
    resolved = {name: plan.settings(name) for name in plan.cells}
    failed: dict[str, str] = {}
    for name, settings in list(resolved.items()):
        try:
            resolved[name] = settings.resolved(load(settings.teacher))
        except RationalSAEError as error:
            failed[name] = str(error)
            del resolved[name]
    order = sorted(resolved, key=lambda name: list(map(str, harvest_key(resolved[name]))))
    harvests = _Harvests()
    chosen = _pilots(plan, resolved, order, out / "pilots", harvests, progress, interval)
    for name in order:
        folder = out / "cells" / name
        rates = chosen.get(_group(resolved[name]), {}) | resolved[name].rates
        settings = resolved[name].model_copy(update={"rates": rates})
        try:
            if _finished(folder, settings):
                tell(f"{name}: finished before")
            else:
                shared = harvests.get(settings, load(settings.teacher))
                with JobFolder(folder, resume=True, interval=interval) as keeper:
                    done = upgrade(settings, shared=shared, progress=_Named(progress, name), keeper=keeper)
                    report = write(done, folder, force=True)
                    keeper.finish()
                tell(f"{name}: {report['verdict']}")
        except OutputError:
            raise
        except RationalSAEError as error:
            failed[name] = str(error)
            tell(f"{name}: failed: {error}")
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


def _pilots(
    plan: Plan,
    resolved: dict[str, Settings],
    order: list[str],
    folder: Path,
    harvests: _Harvests,
    progress: Progress,
    interval: Interval | None,
) -> dict[str, dict[str, float]]:
    """Group → row → factor, from the pilot cells; each kept in a file of its own."""
    chosen: dict[str, dict[str, float]] = {}
    for name in order if plan.rates else []:
        if not plan.cells[name].pilot:
            continue
        path, settings = folder / f"{name}.json", resolved[name]
        asked = {"settings": settings.to_store(), "rates": list(plan.rates)}
        kept = json.loads(path.read_text()) if path.exists() else {}
        if kept and {key: kept[key] for key in asked} != asked:
            raise OutputError(f"{path} is of other settings", "choose another --out")
        if not kept:
            teacher = load(settings.teacher)
            shared = harvests.get(settings, teacher)
            with JobFolder(folder / name, resume=True, interval=interval) as keeper:
                tried = pilot(settings, teacher, shared, plan.rates, _Named(progress, f"pilot {name}"), keeper)
            kept = {**asked, "validation_fvu": tried, "chosen": best_rates(tried)}
            write_whole(path, json.dumps(kept, indent=1))
        shutil.rmtree(folder / name, ignore_errors=True)
        chosen[_group(settings)] = kept["chosen"]
    return chosen


def _group(settings: Settings) -> str:
    """Model and family: what shares learning rates."""
    return f"{settings.model} {load(settings.teacher).metadata.family}"


def _finished(folder: Path, settings: Settings) -> bool:
    """Whether a cell is there, with these settings. Raises OutputError naming a setting that differs."""
    if not (folder / REPORT).exists():
        return False
    require_same(folder, stored_settings(folder), settings.to_store())
    return True
