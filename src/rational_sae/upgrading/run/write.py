"""A finished upgrade → its folder: SAEs, report, settings and log; all of it or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from rational_sae.formats.save import save
from rational_sae.publish.card import model_card
from rational_sae.report import write_report
from rational_sae.support.files import write_whole
from rational_sae.support.outputs import LOG, SETTINGS, UPGRADE, check_elsewhere, check_out, written
from rational_sae.upgrading.run.log import whole_log
from rational_sae.upgrading.run.summary import report_of

if TYPE_CHECKING:
    from rational_sae.upgrading.result import Upgrade


def write(done: Upgrade, out: Path, *, overwrite: bool = False) -> dict[str, Any]:
    """Write `--out`: SAEs, report.json, report.html, settings.yaml, log.jsonl; all of it or nothing.

    An earlier result or a job in `out` is replaced if `overwrite`, by name; other files there stay. report.json is put
    in place last: where it lies, the whole result does. Returns the report. Raises OutputError if `out` holds something
    already (unless `overwrite`) or cannot be written, TrainingError if an SAE is not safe to save.
    """
    check_out(out, UPGRADE, overwrite=overwrite)
    check_elsewhere(done.settings.teacher, out)
    report = report_of(done)
    with written(out, UPGRADE) as partial:
        for name, sae in done.saes.items():
            if name in done.candidates:
                folder = partial / ("sae" if name == "rsae" else name.replace("_", "-"))
                save(sae, folder, model_card(sae, report) if name == "rsae" else None)
        write_report(report, partial)
        write_whole(partial / SETTINGS, yaml.safe_dump(done.settings.to_store(), sort_keys=False))
        write_whole(partial / LOG, "".join(whole_log(done.candidates, done.settings.steps)))
    return report
