"""rsae evaluate: SAEs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rational_sae.cli import terminal
from rational_sae.cli.options import (
    PATH,
    Bos,
    Cache,
    CacheGb,
    Device,
    HookName,
    Json,
    Model,
    Overwrite,
    Probe,
    ProbeTrain,
    TextName,
    TrustRemoteCode,
    checked,
    not_stored,
)


def evaluate(
    saes: Annotated[list[str], typer.Argument(help="SAE folders; the first is what the others are compared with.")],
    text: TextName,
    model: Model = None,
    hook: HookName = None,
    eval_tokens: Annotated[int, typer.Option(help="Test tokens.")] = 16384,
    context: Annotated[int | None, typer.Option()] = None,
    bos: Bos = "auto",
    device: Device = "auto",
    probe: Probe = None,
    probe_train: ProbeTrain = 4000,
    cache: Cache = None,
    cache_gb: CacheGb = 50.0,
    trust_remote_code: TrustRemoteCode = False,
    json_file: Json = None,
    out: Annotated[
        Path | None,
        typer.Option(**PATH, help="Where report.json and report.html go. [default: nowhere]"),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Measure SAEs on the same held-out tokens: reconstruction, ΔCE, loss recovered, KL, probes, with intervals.

    Example: rsae evaluate demo/teachers/topk runs/demo/sae --text news --probe sms-spam --out runs/compared
    """
    from rational_sae.data.reading import Reading
    from rational_sae.evaluation import Protocol
    from rational_sae.evaluation import evaluate as run
    from rational_sae.report import evaluation_report, write_report
    from rational_sae.support.outputs import EVALUATION, check_out

    if out is not None:
        check_out(out, EVALUATION, overwrite=overwrite)
    unkept = not_stored(trust_remote_code, cache, cache_gb)
    reading = checked(Reading, text=text, model=model, hook=hook, context=context, bos=bos, device=device, **unkept)
    with terminal.bars() as bars:
        found = run(
            saes, reading, eval_tokens=eval_tokens, probes=probe or [], protocol=Protocol(probe_train), progress=bars
        )
    report = evaluation_report(
        found.report(), {"saes": saes, "eval_tokens": eval_tokens, **reading.model_dump(mode="json")}
    )
    if out is not None:
        write_report(report, out)
    terminal.emit(report, json_file)
    terminal.print_table(report)
    terminal.warn(report.get("warnings") or [])
    if out is not None:
        terminal.say(f"wrote {out}/report.html and {out}/report.json")
