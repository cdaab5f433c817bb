"""rsae export: an SAE for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from rational_sae.cli import terminal
from rational_sae.cli.options import PATH, Bos, Device, HookName, Json, Model, checked


def export(
    sae: Annotated[str, typer.Argument(help="An SAE folder.")],
    form: Annotated[Literal["saelens", "jumprelu", "safetensors"], typer.Option("--as", help="What to write.")],
    out: Annotated[Path, typer.Option(**PATH, help="Where it goes.")],
    text: Annotated[str | None, typer.Option(help="jumprelu: activations to fit on, as for evaluate.")] = None,
    model: Model = None,
    hook: HookName = None,
    eval_tokens: Annotated[int, typer.Option(help="jumprelu: test tokens, and as many to fit on.")] = 16384,
    context: Annotated[int | None, typer.Option()] = None,
    bos: Bos = "auto",
    device: Device = "auto",
    json_file: Json = None,
) -> None:
    """Write an SAE for other tools.

    saelens: a folder that SAELens 6 reads (a rational one while rational_sae is imported).
    jumprelu: the same without any custom class; the gate is distilled on --text, and the loss is measured.
    safetensors: one plain file, with a forty-line loader in docs/format.md.

    Example: rsae export runs/demo --as jumprelu --text news --out runs/demo-jumprelu
    """
    from rational_sae.data.reading import Reading
    from rational_sae.formats import load
    from rational_sae.formats.save import save, save_plain
    from rational_sae.publish.card import model_card
    from rational_sae.publish.distil import distil, exactly
    from rational_sae.support.outputs import SAE_NAMES, check_elsewhere, check_sae_folder

    written, results = load(sae), None
    if form == "jumprelu" and text is None and exactly(written) is None:
        raise typer.BadParameter("--as jumprelu fits this gate on activations: give --text")
    check_sae_folder(out)
    check_elsewhere(sae, out, SAE_NAMES)
    if form == "jumprelu":
        reading = checked(
            Reading,
            text="news" if text is None else text,
            model=model,
            hook=hook,
            context=context,
            bos=bos,
            device=device,
        )
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
        terminal.show_results(results, json_file)
        change = results.differences["jumprelu - sae"]["fvu"]
        low, high = cast(list[float], change["interval"])
        line = f"FVU {results.rows['jumprelu']['fvu']:.4f}, {change['value']:+.4f} [{low:+.4f}, {high:+.4f}]"
        terminal.console.print(f"JumpReLU: {line} against the SAE, on test tokens", highlight=False, markup=False)
    terminal.say(f"wrote {out}")
