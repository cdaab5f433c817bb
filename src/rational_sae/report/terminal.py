"""A report in a terminal: first the answer; on request the table, metrics down, SAEs across, never a number cut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rational_sae.metrics import metric, named
from rational_sae.report.decision import Decision, Fact, answers, decisions
from rational_sae.report.second_text import second_text_line
from rational_sae.report.sweep_table import sweep_answer, sweep_sheets
from rational_sae.report.table import Cell, Line, difference_rows, having, table_rows
from rational_sae.support.safe_text import name_of, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

STYLES = {"better": "green", "worse": "red", "differs": "yellow", "unclear": "dim", "same": "dim", "slight": "dim"}
LONGEST_WORD = 20


def print_table(report: Mapping[str, Any], console: Console) -> None:
    """The headline metrics and probes of every row, then the differences.

    A table wider than the console is first shown without intervals, then split into several.
    """
    rows, differences = having(table_rows(report), _keys()), having(difference_rows(report), _keys())
    if rows:
        given = any(cell.interval for row in rows for cell in row.cells.values())
        intervals = given and _width(rows, len(rows), True) <= console.width
        _print(rows, console, "results, 95 % intervals" if intervals else "results", intervals=intervals)
    if differences:
        _print(differences, console, "differences, 95 % intervals", intervals=True)


def print_answer(report: Mapping[str, Any], console: Console) -> None:
    """What was asked and found, in some dozen lines: the answer, the figures that decide, what each part gave."""
    found = decisions(report)
    _line(console, report["title"], "italic")
    if not found:
        _line(console, report["verdict"], "bold")
    for one, answer in zip(found, answers(report), strict=True):
        _line(console, answer, "bold")
        _print_decision(one, console)
    if line := second_text_line(report):
        _line(console, line)
    for caution in dict.fromkeys(caution for one in found for caution in one.cautions[:1]):
        _line(console, caution, "dim")


def print_sweep(found: Mapping[str, Any], console: Console, *, full: bool = True) -> None:
    """The answer over all cells, and a sweep's tables, each as wide as it needs. full: of every metric too."""
    from rich.table import Table
    from rich.text import Text

    _line(console, sweep_answer(found), "bold")
    sheets = sweep_sheets(found)
    for sheet in sheets if full else sheets[:1]:
        table = Table(title=Text(name_of(sheet.title)), title_justify="left", title_style="italic", box=None)
        for index, heading in enumerate(sheet.headings):
            table.add_column(Text(name_of(heading)), justify="right" if index else "left", overflow="fold")
        for line in sheet.lines:
            table.add_row(*(Text(name_of(field.text)) for field in line))
        console.print(table)
        console.print()


def _print_decision(one: Decision, console: Console) -> None:
    """The same facts as the page's first block, one a line."""
    for fact in (*one.primary, *one.against):
        _line(console, f"  {_written(fact)}", STYLES.get(fact.outcome, ""))
    parts = [part for part in one.parts if part.brief]
    clear = all(fact.outcome != "unclear" for part in parts for fact in part.facts)
    head = f"What each part gave{'' if clear else ' (~ not clear)'}"
    width = max([len(head), *(len(part.words) for part in parts)])
    if parts:
        _line(console, f"  {head:{width}}  {'  '.join(f'{fact.label:>9}' for fact in parts[0].facts)}", "dim")
    for part in parts:
        _line(console, f"  {part.words:{width}}  {'  '.join(f'{_share(fact):>9}' for fact in part.facts)}")


def _line(console: Console, text: str, style: str = "") -> None:
    from rich.text import Text

    console.print(Text(printable(" ".join(text.split("\n"))), style=style))


def _share(fact: Fact) -> str:
    return f"{'~' if fact.outcome == 'unclear' else ''}{fact.share or fact.difference}"


def _written(fact: Fact) -> str:
    share = f", {fact.share}" if fact.share else ""
    return f"{fact.label} {fact.change} ({' '.join(filter(None, (fact.difference, fact.interval)))}{share})"


def _print(rows: list[Line], console: Console, title: str, *, intervals: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    keys = [key for key in _keys() if key in rows[0].cells]
    abreast = next((n for n in range(len(rows), 1, -1) if _width(rows, n, intervals) <= console.width), 1)
    for start in range(0, len(rows), abreast):
        block = rows[start : start + abreast]
        # A width of its own: a very narrow console wraps the lines, and loses nothing.
        width = _width(rows, len(block), intervals)
        table = Table(title=Text(title), title_justify="left", title_style="italic", box=None, width=width)
        table.add_column("", width=_label_width(), no_wrap=True)
        for row in block:
            table.add_column(
                Text(name_of(row.label)), justify="right", width=_cell_width(rows, intervals), overflow="fold"
            )
        for key in keys:
            table.add_row(Text(metric(key).label), *(_cell(row.cells[key], intervals) for row in block))
        console.print(table, crop=False)
        console.print()


def _keys() -> list[str]:
    """Metrics that a terminal has room for."""
    return named("headline", "floor", "probing", "suite")


def _label_width() -> int:
    return max(len(metric(key).label) for key in _keys())


def _cell(cell: Cell, intervals: bool) -> Text:
    from rich.text import Text

    text = Text(f"{cell.text} {cell.outcome}".strip(), style=STYLES.get(cell.outcome, ""), no_wrap=True)
    if intervals and cell.interval:
        text.append(f"\n{cell.interval}", style="dim")
    return text


def _width(rows: list[Line], abreast: int, intervals: bool) -> int:
    """Characters that so many rows take side by side; rich pads every column by one on each side."""
    return _label_width() + 2 + abreast * (_cell_width(rows, intervals) + 2)


def _cell_width(rows: list[Line], intervals: bool) -> int:
    """The longest of what is in a cell and of the words in the headings; a path may be folded."""
    words = [min(len(word), LONGEST_WORD) for row in rows for word in row.label.split()]
    keys = _keys()
    cells = [cell for row in rows for key, cell in row.cells.items() if key in keys]
    texts = [len(f"{cell.text} {cell.outcome}".strip()) for cell in cells]
    return max([*words, *texts, *(len(cell.interval) for cell in cells if intervals)], default=1)
