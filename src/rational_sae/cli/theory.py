"""rsae theory: the paper's statements, measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rational_sae.cli import terminal
from rational_sae.cli.options import PATH, Overwrite


def theory(
    out: Annotated[Path, typer.Option(**PATH, help="Where theory.json and the figures go.")],
    overwrite: Overwrite = False,
) -> None:
    """The paper's statements measured and plotted, each beside its predicted rate; some minutes.

    Example: rsae theory --out runs/theory
    """
    from rational_sae.support.outputs import THEORIES, check_out
    from rational_sae.theory import measure_theory, write_theory

    check_out(out, THEORIES, overwrite=overwrite)
    with terminal.bars() as bars:
        found = measure_theory(bars)
    write_theory(found, out, overwrite=overwrite)
    for row in found["exponents"]:
        interval = f"[{row['low']:.3f}, {row['high']:.3f}]"
        terminal.result(f"{row['family']:9} {row['count']:11} grows as ε^-{row['a']:.3f} {interval}")
    terminal.say(f"wrote {out}")
