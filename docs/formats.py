"""Rebuild the table of docs/formats.md from the cases that the parity tests run, half a minute.

    make docs-formats

Each row is built and saved by its owner's code, read by this package, and shown as it was read; each refusal is one
that was raised. tests/formats/test_formats_table.py fails when it is out of date.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
START, END = "<!-- formats: written by docs/formats.py -->", "<!-- end of formats -->"


def main() -> None:
    page = ROOT / "docs" / "formats.md"
    page.write_text(with_table(page.read_text(encoding="utf-8")), encoding="utf-8")


def with_table(text: str) -> str:
    """The page with the table as it is now."""
    before, rest = text.split(START)
    _, after = rest.split(END)
    return f"{before}{START}\n{table()}\n{END}{after}"


def table() -> str:
    """What is read, with its formula, and what is refused, in Markdown."""
    sys.path.insert(0, str(ROOT / "tests"))
    from format_cases import CASES, REFUSALS, Shape

    from rational_sae.check.formula import formula
    from rational_sae.errors import SourceError
    from rational_sae.formats import load

    lines = ["| format | kind | as it is read | compared with |", "|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as scratch:
        for i, case in enumerate(CASES):
            owned = case.make(Path(scratch) / str(i) / "sae", Shape(k=32, d_in=64, d_sae=128))
            sae = load(str(owned.path))
            pre, code, out, *rest = formula(sae)
            rest = [out, *rest] if sae.transcodes else rest
            choices = [name for key, name in NAMES.items() if len({choice.get(key) for choice in case.choices}) > 1]
            shown = "; ".join([f"`{pre}`", f"`{code}`", *(f"`{line}`" for line in rest), *choices])
            lines.append(f"| {case.format} (`{case.files}`) | {case.kind} | {shown} | {case.owner} |")
        refused: dict[str, list[str]] = {}
        for i, refusal in enumerate(REFUSALS):
            try:
                load(str(refusal.make(Path(scratch) / f"refused-{i}")))
            except SourceError:
                refused.setdefault(refusal.format, []).append(refusal.kind)
    lines += ["", "Refused by name:", ""]
    lines += [f"- {name}: {', '.join(kinds)}" for name, kinds in refused.items()]
    return "\n".join(lines)


NAMES = {"centred": "b_dec subtracted or not", "normalisation": "all normalisations"}
"""What a kind leaves to its config, by the field of the test's `Shape` that chooses it."""


if __name__ == "__main__":
    main()
