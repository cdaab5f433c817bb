"""rsae report: HTML again from JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rational_sae.cli import terminal
from rational_sae.cli.options import PATH


def report(folder: Annotated[Path, typer.Argument(**PATH, help="An --out folder.")]) -> None:
    """Rebuild report.html from report.json, or a sweep's sweep.html from its sweep.json.

    Example: rsae report runs/demo
    """
    from rational_sae.report import print_sweep, read_report, read_sweep, write_page, write_sweep_page

    if (folder / "sweep.json").exists():
        swept = read_sweep(folder)
        write_sweep_page(swept, folder)
        print_sweep(swept, terminal.console)
        terminal.say(f"wrote {folder / 'sweep.html'}")
        return
    found = read_report(folder)
    write_page(found, folder)
    terminal.print_table(found)
    terminal.say(f"wrote {folder / 'report.html'}")
