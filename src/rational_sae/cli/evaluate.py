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
    from rational_sae.evaluation import Protocol, Size
    from rational_sae.evaluation import evaluate as run
    from rational_sae.report import evaluation_report, write_report
    from rational_sae.support.outputs import EVALUATION, check_out
    from rational_sae.upgrading.settings import Settings

    if out is not None:
        check_out(out, EVALUATION, overwrite=overwrite)
    asked = {name: options.pop(name) for name in PANELS["Evaluation"] if name not in Reading.model_fields}
    checked(Settings, teacher="any", **{name: asked[name] for name in ("least_effect", "probe_tasks", "probe_texts")})
    reading = checked(Reading, **options)
    with terminal.bars() as bars:
        found = run(
            saes,
            reading,
            eval_tokens=asked["eval_tokens"],
            probes=asked["probes"] or (),
            protocol=Protocol(asked["probe_train"]),
            size=Size(asked["probe_tasks"], asked["probe_texts"]),
            random=asked["random"],
            progress=bars,
        )
    report = evaluation_report(
        found.report(),
        {
            "saes": saes,
            "eval_tokens": asked["eval_tokens"],
            "least_effect": asked["least_effect"],
            **reading.model_dump(mode="json"),
        },
    )
    if out is not None:
        write_report(report, out)
    terminal.emit(report, json_file)
    terminal.show_report(report, full=full, json_file=json_file)
    if out is not None:
        terminal.say(f"wrote {out}/report.html and {out}/report.json")
