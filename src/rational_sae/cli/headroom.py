"""rsae headroom: what magnitude alone can gain."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rational_sae.cli import terminal
from rational_sae.cli.options import READING, Json, checked, takes


@takes(
    *(*READING, "trust_remote_code", "eval_tokens"),
    needs=("text",),
    says={"eval_tokens": "Test tokens, and as many to fit on."},
)
def headroom(
    sae: Annotated[str, typer.Argument(help="A ReLU, JumpReLU or TopK SAE.")],
    json_file: Json = None,
    **options: Any,
) -> None:
    """What a better magnitude alone can gain, in closed form, before any training.

    Encoder, decoder, support and poles stay; gains of selection lie outside, so 0 is no verdict on an upgrade.

    Example: rsae headroom demo/teachers/relu --text news
    """
    from rational_sae.data.reading import Reading
    from rational_sae.report import relative_difference
    from rational_sae.upgrading.headroom import headroom as run

    eval_tokens = options.pop("eval_tokens")
    reading = checked(Reading, **options)
    with terminal.bars() as bars:
        found = run(sae, reading, eval_tokens=eval_tokens, progress=bars)
    report = terminal.show_results(found, json_file)
    for name in found.differences:
        value, low, high = relative_difference(report, name, "fvu")
        terminal.say(f"{name}: FVU {value:+.1%} [{low:+.1%}, {high:+.1%}]")
