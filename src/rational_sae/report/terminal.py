"""The table in a terminal: metrics down, SAEs across, never a truncated number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .table import Row, difference_rows, table_rows
from .vocabulary import HEADLINE, metric

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

STYLES = {"better": "green", "worse": "red", "differs": "yellow", "unclear": "dim"}
LABEL_WIDTH = max(len(m.label) for m in HEADLINE.values()) + 2


def print_table(report: Mapping[str, Any], console: Console) -> None:
    """The headline metrics of every row, then the differences.

    A table wider than the console is first shown without intervals, then split into several.
    """
    rows, differences = table_rows(report), difference_rows(report)
    if rows:
        intervals = _fitting(rows, console.width, intervals=True) >= len(rows)
        _print(rows, console, "95 % intervals in brackets" if intervals else "", intervals=intervals)
    if differences:
        _print(differences, console, "differences, paired bootstrap, 95 % intervals", intervals=True)


def _print(rows: list[Row], console: Console, title: str, *, intervals: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    keys = [key for key in HEADLINE if any(key in row.cells for row in rows)]
    step = _fitting(rows, console.width, intervals=intervals)
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        table = Table(title=Text(title, style="dim") if title else None, title_justify="left", box=None)
        table.add_column("", no_wrap=True)
        for row in block:
            table.add_column(Text(row.label), justify="right")
        for key in keys:
            table.add_row(Text(metric(key).label), *(_cell(row, key, intervals) for row in block))
        console.print(table)


def _cell(row: Row, key: str, intervals: bool) -> Text:
    from rich.text import Text

    cell = row.cells[key]
    text = Text(" ".join(filter(None, (cell.text, cell.outcome))), style=STYLES.get(cell.outcome, ""), no_wrap=True)
    if intervals and cell.interval:
        text.append(f"\n{cell.interval}", style="dim")
    return text


def _fitting(rows: list[Row], width: int, *, intervals: bool) -> int:
    """How many of the rows stand side by side."""
    cells = [cell for row in rows for key, cell in row.cells.items() if key in HEADLINE]
    widest = max((len(cell.text) + len(cell.outcome) + 1 for cell in cells), default=1)
    if intervals:
        widest = max([widest, *(len(cell.interval) for cell in cells)])
    words = [word for row in rows for word in row.label.split()]
    widest = max([widest, *map(len, words)])
    return max(1, (width - LABEL_WIDTH) // (widest + 2))
