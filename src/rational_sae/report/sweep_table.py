"""A sweep's tables, the same in terminal, page and documents: cells down, rows across."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .numbers import ABSENT, format_value
from .vocabulary import ROWS, in_order, metric, row_label

SHOWN = ("fvu_at_l0", "delta_ce_at_l0", "loss_recovered", "alive_fraction")
HIDDEN = ("teacher_rescaled", "init_hard")
"""Rows that only a cell's own report shows."""


@dataclass(frozen=True)
class Sheet:
    """One table."""

    title: str
    headings: list[str]
    lines: list[list[str]]
    """Text of every field; the first names the line."""


def sweep_sheets(found: Mapping[str, Any]) -> list[Sheet]:
    """What holds over all cells first, then a table a metric."""
    sheets = [_ratios(found, which) for which in ("headline", "development") if found["ratios"].get(which)]
    return sheets + ([_metric(found, key) for key in SHOWN] if found["cells"] else [])


def _metric(found: Mapping[str, Any], key: str) -> Sheet:
    cells = found["cells"]
    rows = [r for r in in_order(dict.fromkeys(r for c in cells.values() for r in c["rows"]), ROWS) if r not in HIDDEN]
    lines = []
    for name, cell in cells.items():
        values = [format_value(key, cell["rows"].get(row, {}).get(key)) for row in rows]
        mark = " (development)" if cell["development"] else ""
        lines.append([name + mark, format_value("l0", cell["rows"]["teacher"]["l0"]), *values])
    return Sheet(metric(key).label, ["cell", "L0", *map(row_label, rows)], lines)


def _ratios(found: Mapping[str, Any], which: str) -> Sheet:
    lines = []
    for base, keys in found["ratios"][which].items():
        for key, ratio in keys.items():
            mean = ratio["geometric_mean"]
            lines.append(
                [
                    f"{metric(key).label} against {row_label(base)}",
                    ABSENT if mean is None else f"{mean:.4f}",
                    f"{ratio['worst']:.4f}",
                    ratio["worst_cell"],
                    f"{ratio['clearly_better']} of {ratio['cells']}",
                    f"{ratio['clearly_worse']} of {ratio['cells']}",
                ]
            )
    headings = ["ratio, below 1 is a gain", "geometric mean", "worst", "worst cell", "clearly better", "clearly worse"]
    return Sheet(f"The rational SAE over all {which} cells", headings, lines)
