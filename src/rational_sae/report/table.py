"""The table that every view shows: rows of cells, each with its number and the text that stands for it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rational_sae.metrics import METRICS, metric
from rational_sae.report.numbers import format_difference, format_interval, format_value
from rational_sae.report.rows import in_order, row_label, untrained


@dataclass(frozen=True)
class Cell:
    """One number."""

    key: str
    value: float | None
    text: str
    interval: str
    """Its 95 % interval, "" where none was computed."""
    outcome: str = ""
    """For a difference: better, worse, differs or unclear; "" without an interval."""


@dataclass(frozen=True)
class Line:
    """One line: an SAE with its metrics, or a comparison with its differences."""

    name: str
    label: str
    cells: dict[str, Cell]


def table_rows(report: Mapping[str, Any]) -> list[Line]:
    """One row an SAE, in the order of display; every row has a cell for every key that any row has."""
    rows: Mapping[str, Mapping[str, float | None]] = report["rows"]
    intervals = report.get("intervals") or {}
    keys = _keys(rows.values())

    def cell(name: str, key: str) -> Cell:
        value = rows[name].get(key)
        interval = format_interval(key, (intervals.get(name) or {}).get(key))
        return Cell(key, value, format_value(key, value), interval)

    kept = untrained(report)
    return [Line(name, row_label(name, kept), {key: cell(name, key) for key in keys}) for name in in_order(rows)]


def difference_rows(report: Mapping[str, Any]) -> list[Line]:
    """One row a comparison, as they come; a difference whose interval holds 0 is marked unclear."""
    differences: Mapping[str, Mapping[str, Any]] = report.get("differences") or {}
    keys = _keys(differences.values())

    def cell(name: str, key: str) -> Cell:
        found = differences[name].get(key) or {}
        value, interval = found.get("value"), found.get("interval")
        text = format_interval(key, interval, signed=True)
        return Cell(
            key, value, format_difference(key, value), text, _outcome(key, interval) if text and interval else ""
        )

    kept = untrained(report)
    return [Line(name, row_label(name, kept), {key: cell(name, key) for key in keys}) for name in differences]


def having(rows: Iterable[Line], keys: Iterable[str]) -> list[Line]:
    """The rows that have a number for any of the keys: raw activations, say, have only probes."""
    keys = list(keys)
    return [row for row in rows if any(key in row.cells and row.cells[key].value is not None for key in keys)]


def probing_rows(report: Mapping[str, Any]) -> dict[str, list[Line]]:
    """Task → its table: one row an SAE."""
    tasks = (report.get("probing") or {}).get("tasks") or {}
    return {name: _measured_rows(task["rows"], untrained(report)) for name, task in tasks.items()}


def suite_rows(report: Mapping[str, Any], which: str) -> list[Line]:
    """One row an SAE: its means over the tasks of sae-probes. which: on what they were tested."""
    return _measured_rows(report["suite"][which]["mean"], untrained(report))


def absorption_rows(report: Mapping[str, Any]) -> list[Line]:
    """One row an SAE with the numbers of the first-letter task; what is no number is left to report.json."""
    rows: Mapping[str, Mapping[str, Any]] = report.get("absorption") or {}
    return _measured_rows(
        {name: {key: one for key, value in row.items() if (one := _as_measured(value))} for name, row in rows.items()},
        untrained(report),
    )


def _as_measured(value: Any) -> Mapping[str, Any] | None:
    if isinstance(value, Mapping):
        return value if isinstance(value.get("value"), (int, float)) else None
    return {"value": value} if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _measured_rows(rows: Mapping[str, Mapping[str, Mapping[str, Any]]], kept: Collection[str]) -> list[Line]:
    keys = _keys(rows.values())

    def cell(name: str, key: str) -> Cell:
        found = rows[name].get(key) or {}
        value = found.get("value")
        return Cell(key, value, format_value(key, value), format_interval(key, found.get("interval")))

    return [Line(name, row_label(name, kept), {key: cell(name, key) for key in keys}) for name in in_order(rows)]


def _keys(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return in_order(dict.fromkeys(key for row in rows for key in row), METRICS)


def _outcome(key: str, interval: tuple[float, float]) -> str:
    low, high = interval
    if low <= 0 <= high:
        return "unclear"
    better = metric(key).better
    if better is None:
        return "differs"
    return "better" if (high < 0) == (better == "lower") else "worse"
