"""rsae inspect: what an SAE is."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rational_sae.cli import terminal
from rational_sae.cli.options import READING, Json, checked, takes


@takes(*READING, says={"text": "Measure it on this text: {}"})
def inspect(
    sae: Annotated[str, typer.Argument(help="File, folder, hub:OWNER/REPO[/PATH], saelens:RELEASE/ID or demo:topk.")],
    json_file: Json = None,
    **options: Any,
) -> None:
    """What an SAE is: family, formula, shapes, scaling, model, hook, training; with --text, whether the formula holds.

    Example: rsae inspect demo:topk --text news
    """
    from rational_sae.check.inspection import inspect_sae
    from rational_sae.check.words import sentences
    from rational_sae.data.reading import Reading

    reading = checked(Reading, **options) if options["text"] is not None else None
    with terminal.bars() as bars:
        facts = inspect_sae(sae, reading, progress=bars)
    terminal.emit(facts, json_file)
    for line in sentences(facts):
        terminal.result(line, json_file)
