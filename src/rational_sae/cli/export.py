"""rsae export: an SAE for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from rational_sae.cli import terminal
from rational_sae.cli.options import PATH, READING, Json, checked, takes


@takes(
    *(*READING, "eval_tokens"),
    says={
        "text": "jumprelu: activations to fit on, as for evaluate.",
        "eval_tokens": "jumprelu: test tokens, and as many to fit on.",
    },
)
def export(
    sae: Annotated[str, typer.Argument(help="An SAE folder.")],
    form: Annotated[Literal["saelens", "jumprelu", "safetensors"], typer.Option("--as", help="What to write.")],
    out: Annotated[Path, typer.Option(**PATH, help="Where it goes.")],
    json_file: Json = None,
    **options: Any,
) -> None:
    """Write an SAE for other tools.

    saelens: a folder that SAELens 6 reads (a rational one while rational_sae is imported).
    jumprelu: the same without any custom class; the gate is distilled on --text, and the loss is measured.
    safetensors: one plain file, with a fifty-line loader in docs/format.md.

    Example: rsae export runs/demo --as jumprelu --text news --out runs/demo-jumprelu
    """
    from rational_sae.data.reading import Reading
    from rational_sae.formats import load
    from rational_sae.formats.save import save, save_plain
    from rational_sae.publish.card import model_card
    from rational_sae.publish.distil import distil, exactly
    from rational_sae.support.outputs import SAE_NAMES, check_elsewhere, check_sae_folder

    written, results = load(sae), None
    eval_tokens = options.pop("eval_tokens")
    if form == "jumprelu" and options["text"] is None and exactly(written) is None:
        raise typer.BadParameter("--as jumprelu fits this gate on activations: give --text")
    check_sae_folder(out)
    check_elsewhere(sae, out, SAE_NAMES)
    if form == "jumprelu":
        given = {name: value for name, value in options.items() if value is not None}
        reading = checked(Reading, **given)
        with terminal.bars() as bars:
            found = distil(sae, reading, eval_tokens=eval_tokens, progress=bars)
        written, results = found.sae, found.results
    if form == "safetensors":
        save_plain(written, out)
    else:
        save(written, out, model_card(written))
    if results is None:
        terminal.warn(written.metadata.warnings)
    else:
        terminal.show_figures(results, json_file)
        change = results.differences["jumprelu - sae"]["fvu"]
        low, high = cast(list[float], change["interval"])
        line = f"FVU {results.rows['jumprelu']['fvu']:.4f}, {change['value']:+.4f} [{low:+.4f}, {high:+.4f}]"
        terminal.result(f"JumpReLU: {line} against the SAE, on test tokens", json_file)
    terminal.say(f"wrote {out}")
