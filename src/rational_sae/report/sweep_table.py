"""A sweep's tables, the same in terminal, page and documents: cells down, rows across."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rational_sae.metrics import metric
from rational_sae.report.numbers import ABSENT, format_interval, format_value
from rational_sae.report.rows import TEACHER, UNTRAINED, row_label, shown_in_sweep, untrained

SHOWN = ("fvu_at_l0", "delta_ce_at_l0", "loss_recovered", "l0", "alive_fraction")


@dataclass(frozen=True)
class Field:
    """One place in a table."""

    text: str
    value: float | None = None
    """What it is sorted by."""
    interval: str = ""


@dataclass(frozen=True)
class Sheet:
    """One table."""

    title: str
    headings: list[str]
    lines: list[list[Field]]
    """The first field of each names the line."""


def sweep_sheets(found: Mapping[str, Any]) -> list[Sheet]:
    """What holds over all cells first, then a table a metric."""
    sheets = [_ratios(found, which) for which in ("headline", "development") if found["ratios"].get(which)]
    return sheets + ([_metric(found, key) for key in SHOWN] if found["cells"] else [])


def _metric(found: Mapping[str, Any], key: str) -> Sheet:
    cells = found["cells"]
    rows = shown_in_sweep(dict.fromkeys(row for cell in cells.values() for row in cell["rows"]))
    lines = []
    for name, cell in cells.items():
        mark = " (development)" if cell["development"] else ""
        start = [Field(name + mark), _field(cell, TEACHER, "l0")]
        lines.append(start + [_field(cell, row, key) for row in rows])
    return Sheet(metric(key).label, ["cell", "L0", *map(row_label, rows)], lines)


def _field(cell: Mapping[str, Any], row: str, key: str) -> Field:
    value = cell["rows"].get(row, {}).get(key)
    interval = ((cell.get("intervals") or {}).get(row) or {}).get(key)
    said = f" ({UNTRAINED})" if value is not None and row in untrained(cell) else ""
    return Field(format_value(key, value) + said, value, format_interval(key, interval))


def _ratios(found: Mapping[str, Any], which: str) -> Sheet:
    lines = []
    for base, keys in found["ratios"][which].items():
        for key, ratio in keys.items():
            mean, cells = ratio["geometric_mean"], ratio["cells"]
            kept = ratio.get(UNTRAINED)
            said = f" ({UNTRAINED} in {kept} of {cells})" if kept else ""
            lines.append(
                [
                    Field(f"{metric(key).label} against {row_label(base)}{said}"),
                    Field(ABSENT if mean is None else f"{mean:.4f}", mean),
                    Field(f"{ratio['worst']:.4f}", ratio["worst"]),
                    Field(ratio["worst_cell"]),
                    Field(f"{ratio['clearly_better']} of {cells}", ratio["clearly_better"]),
                    Field(f"{ratio['clearly_worse']} of {cells}", ratio["clearly_worse"]),
                ]
            )
    headings = ["ratio, below 1 is a gain", "geometric mean", "worst", "worst cell", "clearly better", "clearly worse"]
    return Sheet(f"The rational SAE over all {which} cells", headings, lines)
