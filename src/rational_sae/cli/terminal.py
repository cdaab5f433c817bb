"""What commands say: people's output on stderr, JSON where `--json` points."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console

from rational_sae.support.outputs import write_file
from rational_sae.support.safe_text import printable, redact

console = Console(stderr=True)


def say(line: str, *, head: str = "", colour: str = "red") -> None:
    """One line on stderr, as it is: no markup, no control characters, no access tokens."""
    from rich.text import Text

    text = Text.assemble((head, colour), " " if head else "", printable(" ".join(redact(line).split("\n"))))
    console.print(text, soft_wrap=True)


def bars() -> Any:
    from rational_sae.support.bars import shown

    return shown(console)


def emit(value: dict[str, Any], json_file: str | None) -> None:
    """JSON to where `--json` points. Raises OutputError if it cannot be written."""
    if json_file is None:
        return
    text = json.dumps(value, indent=2) + "\n"
    if json_file == "-":
        sys.stdout.write(text)
    else:
        write_file(Path(json_file), text)


def print_table(found: Any) -> None:
    from rational_sae.report import print_table

    print_table(found, console)


def warn(lines: Iterable[str]) -> None:
    for line in lines:
        say(line, head="warning:", colour="yellow")


def show_results(found: Any, json_file: str | None) -> dict[str, Any]:
    report = found.report()
    emit(report, json_file)
    print_table({"schema": 1, "title": "", "verdict": "", **report})
    warn(report.get("warnings") or [])
    return report
