"""rsae headroom: what magnitude alone can gain."""

from __future__ import annotations

from typing import Annotated

import typer

from rational_sae.cli import terminal
from rational_sae.cli.options import Bos, Device, HookName, Json, Model, TextName, TrustRemoteCode, checked


def headroom(
    sae: Annotated[str, typer.Argument(help="A ReLU, JumpReLU or TopK SAE.")],
    text: TextName,
    model: Model = None,
    hook: HookName = None,
    eval_tokens: Annotated[int, typer.Option(help="Test tokens, and as many to fit on.")] = 16384,
    context: Annotated[int | None, typer.Option()] = None,
    bos: Bos = "auto",
    device: Device = "auto",
    trust_remote_code: TrustRemoteCode = False,
    json_file: Json = None,
) -> None:
    """What a better magnitude alone can gain, in closed form, before any training.

    Encoder, decoder, support and poles stay; gains of selection lie outside, so 0 is no verdict on an upgrade.

    Example: rsae headroom demo/teachers/relu --text news
    """
    from rational_sae.data.reading import Reading
    from rational_sae.report import relative_difference
    from rational_sae.upgrading.headroom import headroom as run

    reading = checked(
        Reading,
        text=text,
        model=model,
        hook=hook,
        context=context,
        bos=bos,
        device=device,
        trust_remote_code=trust_remote_code,
    )
    with terminal.bars() as bars:
        found = run(sae, reading, eval_tokens=eval_tokens, progress=bars)
    report = terminal.show_results(found, json_file)
    for name in found.differences:
        value, low, high = relative_difference(report, name, "fvu")
        terminal.say(f"{name}: FVU {value:+.1%} [{low:+.1%}, {high:+.1%}]")
