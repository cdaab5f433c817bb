"""rsae status: how far a job is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rational_sae.cli import terminal
from rational_sae.cli.options import PATH


def status(
    folder: Annotated[Path, typer.Argument(**PATH, help="The --out folder of an upgrade or a sweep.")],
) -> None:
    """How far a job is, whether it runs, and what can be resumed.

    Example: rsae status runs/grid
    """
    from rational_sae.upgrading.run.status import cells_line
    from rational_sae.upgrading.run.status import status as of

    found = of(folder)
    if line := cells_line(folder):
        terminal.result(line)
    for one in found:
        terminal.result(one.line())
        for line in one.row_lines():
            terminal.result(line)
