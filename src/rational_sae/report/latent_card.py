"""One latent in a terminal: some thirty lines, of `evaluation.latent_card`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rational_sae.report.features import active_on
from rational_sae.report.numbers import format_value
from rational_sae.support.safe_text import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

NUMBERS = {"threshold": "threshold", "scale": "scale s_j", "b_enc": "b_enc", "decoder_norm": "decoder norm"}
TOP_SHOWN = 5
"""Contexts."""
BEFORE_PEAK, AFTER_PEAK = 14, 6
"""Tokens of a context that a line has room for."""


def print_latent(found: Mapping[str, Any], console: Console) -> None:
    """The card of one latent, and of its counterpart in the teacher if that was looked up."""
    from rich.text import Text

    def line(text: str, style: str = "") -> None:
        console.print(Text(printable(text), style=style), soft_wrap=True)

    line(
        f"Latent {found['latent']} of {found['source']} ({found['d_sae']:,} latents, {found['model']}, {found['hook']})"
    )
    if found.get("public_page"):
        line(found["public_page"], "dim")
    line(f"Gate      {found['formula']}")
    line(f"          {_numbers(found['numbers'])}", "dim")
    _print_firing(found, console)
    _print_logits(found, console)
    near = ", ".join(f"#{int(place)} {cosine:.2f}" for place, cosine in found["nearest"])
    line(f"Nearest   {near} (cosine of decoder rows)")
    teacher = found.get("teacher")
    if teacher is None:
        return
    moved = f"decoder cosine {teacher['cos_decoder']:.3f}, encoder {teacher['cos_encoder']:.3f}"
    kept = teacher.get("tokens_kept")
    line("")
    line(
        f"Teacher's latent {found['latent']} ({teacher['source']}): {moved}"
        + ("" if kept is None else f", tokens kept {kept:.0%}")
    )
    line(f"Gate      {teacher['formula']}")
    line(f"          {_numbers(teacher['numbers'])}", "dim")
    _print_firing(teacher, console)
    _print_logits(teacher, console)


def _numbers(numbers: Mapping[str, float]) -> str:
    return ", ".join(f"{words} {numbers[key]:.4g}" for key, words in NUMBERS.items() if key in numbers)


def _print_firing(found: Mapping[str, Any], console: Console) -> None:
    from rich.text import Text

    if "tokens" not in found:
        console.print(Text("Fires     give --text to see how often, and on what", style="dim"))
        return
    words = f"Fires     on {active_on(found['fired'], found['tokens'])}"
    if found["fired"]:
        words += (
            f", mean {format_value('activation', found['mean'])}, most {format_value('activation', found['largest'])}"
        )
    console.print(Text(words))
    for example in found["examples"][:TOP_SHOWN]:
        console.print(_context(example), soft_wrap=True)


def _context(example: Mapping[str, Any]) -> Text:
    """A line: the value at the peak, and the tokens around it; active ones stand out."""
    from rich.text import Text

    peak, values = example["peak"], example["values"]
    line = Text(f"{format_value('activation', values[peak]):>9} ", style="dim")
    for i, token in enumerate(example["tokens"]):
        if peak - BEFORE_PEAK <= i <= peak + AFTER_PEAK:
            shown = printable(" ".join(token.splitlines()) if token.strip() else " ")
            line.append(shown, style="bold yellow underline" if i == peak else "yellow" if values[i] else "none")
    return line


def _print_logits(found: Mapping[str, Any], console: Console) -> None:
    from rich.text import Text

    if "no_logits" in found:
        console.print(Text(f"Logits    none: {printable(found['no_logits'])}", style="dim"), soft_wrap=True)
        return
    for name, key in (("Promotes", "promoted"), ("Lowers", "suppressed")):
        tokens = "  ".join(f"{token!r} {value:+.1f}" for token, value in found[key])
        console.print(Text(printable(f"{name:10}{tokens}")), soft_wrap=True)
