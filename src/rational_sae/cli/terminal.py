"""What commands say: results on stdout, progress and remarks on stderr, JSON where `--json` points."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console

from rational_sae.support.outputs import write_file
from rational_sae.support.safe_text import printable, redact

console = Console(stderr=True)
"""For progress, remarks, warnings and errors."""
out = Console()
"""For results."""
quiet = False
"""Whether progress and remarks are left out."""


def say(line: str, *, head: str = "", colour: str = "red", always: bool = False) -> None:
    """One line on stderr, as it is: no markup, no control characters, no access tokens. A remark, which has no head, is
    left out where quiet was asked for, unless it is said always."""
    if head or always or not quiet:
        console.print(_plain(line, head, colour), soft_wrap=True)


def result(line: str, json_file: str | None = None) -> None:
    """One line of a result, as `say` writes it."""
    results(json_file).print(_plain(line), soft_wrap=True)


def results(json_file: str | None = None) -> Console:
    """Where people's results go: stdout, unless JSON goes there."""
    return console if json_file == "-" else out


def _plain(line: str, head: str = "", colour: str = "") -> Any:
    from rich.text import Text

    return Text.assemble((head, colour), " " if head else "", printable(" ".join(redact(line).split("\n"))))


def bars() -> Any:
    """Progress on stderr, or none where quiet was asked for; first a word where torch takes fewer threads because the
    machine is busy."""
    from rational_sae.support.bars import shown
    from rational_sae.support.load import settle
    from rational_sae.support.progress import Silent

    if "torch" in sys.modules and (line := settle()):  # a command without it has nothing to slow down
        say(line)
    return contextlib.nullcontext(Silent()) if quiet else shown(console)


def tell_surroundings() -> None:
    """What a run depends on, for a report of a fault; and what libraries remark from now on."""
    import logging

    from rational_sae.report import environment

    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    say(", ".join(f"{name} {value}" for name, value in environment().items()), always=True)


def emit(value: dict[str, Any], json_file: str | None) -> None:
    """JSON to where `--json` points. Raises OutputError if it cannot be written."""
    if json_file is None:
        return
    text = json.dumps(value, indent=2) + "\n"
    if json_file == "-":
        sys.stdout.write(text)
    else:
        write_file(Path(json_file), text)


def show_report(report: dict[str, Any], *, full: bool = False, json_file: str | None = None) -> None:
    """The answer, and its warnings. full: with every row and difference."""
    from rational_sae.report import print_answer, print_table

    if full:
        print_table(report, results(json_file))
    print_answer(report, results(json_file))
    warn(report.get("warnings") or [])


def warn(lines: Iterable[str]) -> None:
    for line in lines:
        say(line, head="warning:", colour="yellow")


def show_figures(found: Any, json_file: str | None) -> dict[str, Any]:
    """Figures of rows that nobody has to choose from: the table, without an answer."""
    from rational_sae.report import print_table

    report = found.report()
    emit(report, json_file)
    print_table({"schema": 1, "title": "", "verdict": "", **report}, results(json_file))
    warn(report.get("warnings") or [])
    return report
