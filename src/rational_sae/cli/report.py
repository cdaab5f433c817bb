"""rsae report: HTML again from JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rational_sae.cli import terminal
from rational_sae.cli.options import PATH, Full


def report(
    folder: Annotated[Path, typer.Argument(**PATH, help="An --out folder.")],
    full: Full = False,
) -> None:
    """Show the answer again, and rebuild report.html from report.json, or sweep.html from sweep.json.

    Example: rsae report runs/demo
    """
    from rational_sae.report import print_sweep, read_report, read_sweep, write_page, write_sweep_page

    if (folder / "sweep.json").exists():
        swept = read_sweep(folder)
        write_sweep_page(swept, folder)
        print_sweep(swept, terminal.out, full=full)
        terminal.say(f"wrote {folder / 'sweep.html'}")
        return
    found = read_report(folder)
    write_page(found, folder)
    terminal.show_report(found, full=full)
    terminal.say(f"wrote {folder / 'report.html'}")
