"""A finished upgrade → its folder: SAEs, report, settings and log; all of it or nothing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import yaml

from rational_sae.card import model_card
from rational_sae.errors import OutputError
from rational_sae.export import save
from rational_sae.files import flush_folder, write_whole
from rational_sae.report import write_report
from rational_sae.upgrade.job import Upgrade
from rational_sae.upgrade.log import LOG, whole_log
from rational_sae.upgrade.summary import report_of

REPORT = "report.json"
"""Put in place last: where it lies, the whole result does."""

OTHERS = ("checkpoint", "tensorboard", "wandb")
"""What a running job keeps in the folder beside its result."""


def write(done: Upgrade, out: Path, *, force: bool = False) -> dict[str, Any]:
    """Write `--out`: SAEs, report.json, report.html, settings.yaml, log.jsonl; all of it or nothing.

    Returns the report. Raises OutputError if `out` holds something already (unless `force`) or cannot be written,
    TrainingError if an SAE is not safe to save.
    """
    check_out(out, force=force)
    partial = out.with_name(out.name + ".partial")
    report = report_of(done)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name, sae in done.saes.items():
            if name in done.candidates:
                folder = partial / ("sae" if name == "rsae" else name.replace("_", "-"))
                save(sae, folder, model_card(sae, report) if name == "rsae" else None)
        write_report(report, partial)
        write_whole(partial / "settings.yaml", yaml.safe_dump(done.settings.to_store(), sort_keys=False))
        write_whole(partial / LOG, "".join(whole_log(done.candidates, done.settings.steps)))
        _install(partial, out)
    except OSError as error:
        raise OutputError(
            f"cannot write {out} ({error.strerror or error})", "free space or choose another --out"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return report


def _install(partial: Path, out: Path) -> None:
    """Put a result in place of what is there, so that report.json is there only with all the rest of it."""
    out.mkdir(exist_ok=True)
    (out / REPORT).unlink(missing_ok=True)
    for old in out.iterdir():
        if old.name not in OTHERS:
            shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
    for new in sorted(partial.iterdir(), key=lambda path: path.name == REPORT):
        os.replace(new, out / new.name)
    flush_folder(out)


def check_out(out: Path, *, force: bool = False) -> None:
    """Raise OutputError early if `out` cannot take a result."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not force:
        raise OutputError(f"{out} exists and is not empty", "choose another --out, or give --force to replace it")
    parent = next(p for p in [out.absolute(), *out.absolute().parents] if p.exists())
    if not os.access(parent, os.W_OK):
        raise OutputError(f"{parent} is not writable", "choose another --out")
