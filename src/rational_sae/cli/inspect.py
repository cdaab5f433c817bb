"""rsae inspect: what an SAE is."""

from __future__ import annotations

from typing import Annotated

import typer

from rational_sae.cli import terminal
from rational_sae.cli.options import Bos, Device, HookName, Json, Model, checked


def inspect(
    sae: Annotated[str, typer.Argument(help="File, folder, hub:OWNER/REPO[/PATH] or saelens:RELEASE/ID.")],
    text: Annotated[str | None, typer.Option(help="Measure it on this text: .txt, .jsonl[.gz], …, or news.")] = None,
    model: Model = None,
    hook: HookName = None,
    context: Annotated[int | None, typer.Option()] = None,
    bos: Bos = "auto",
    device: Device = "auto",
    json_file: Json = None,
) -> None:
    """What an SAE is: family, formula, shapes, scaling, model, hook, training; with --text, whether the formula holds.

    Example: rsae inspect demo/teachers/topk --text news
    """
    from rational_sae.check.inspection import inspect_sae
    from rational_sae.data.reading import Reading

    options = {"model": model, "hook": hook, "context": context, "bos": bos, "device": device}
    reading = checked(Reading, text=text, **options) if text is not None else None
    with terminal.bars() as bars:
        facts = inspect_sae(sae, reading, progress=bars)
    terminal.emit(facts, json_file)
    for key, value in facts.items():
        lines = value if isinstance(value, list) else [value]
        for i, line in enumerate(lines):
            terminal.say(f"{'' if i else key:22} {line}")
