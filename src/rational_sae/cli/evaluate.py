"""rsae evaluate: SAEs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rational_sae.cli import terminal
from rational_sae.cli.options import PANELS, PATH, READING, Full, Json, Overwrite, checked, takes


@takes(*READING, *PANELS["Evaluation"], "cache", "cache_gb", "trust_remote_code", needs=("text",))
def evaluate(
    saes: Annotated[list[str], typer.Argument(help="SAE folders; the first is what the others are compared with.")],
    json_file: Json = None,
    out: Annotated[
        Path | None,
        typer.Option(**PATH, help="Where report.json and report.html go. [default: nowhere]"),
    ] = None,
    overwrite: Overwrite = False,
    full: Full = False,
    **options: Any,
) -> None:
    """Measure SAEs on the same held-out tokens: reconstruction, ΔCE, loss recovered, KL, probes, with intervals.

    Example: rsae evaluate demo:topk runs/demo/sae --text news --probe sms-spam --out runs/compared
    """
    from rational_sae.data.reading import Reading
    from rational_sae.evaluation import Protocol
    from rational_sae.evaluation import evaluate as run
    from rational_sae.report import evaluation_report, write_report
    from rational_sae.support.outputs import EVALUATION, check_out
    from rational_sae.upgrading.settings import Settings

    if out is not None:
        check_out(out, EVALUATION, overwrite=overwrite)
    eval_tokens, probes, probe_train, least_effect = (options.pop(name) for name in PANELS["Evaluation"])
    checked(Settings, teacher="any", least_effect=least_effect)
    reading = checked(Reading, **options)
    with terminal.bars() as bars:
        found = run(
            saes, reading, eval_tokens=eval_tokens, probes=probes or (), protocol=Protocol(probe_train), progress=bars
        )
    report = evaluation_report(
        found.report(),
        {"saes": saes, "eval_tokens": eval_tokens, "least_effect": least_effect, **reading.model_dump(mode="json")},
    )
    if out is not None:
        write_report(report, out)
    terminal.emit(report, json_file)
    terminal.show_report(report, full=full, json_file=json_file)
    if out is not None:
        terminal.say(f"wrote {out}/report.html and {out}/report.json")
