"""Reports of cells → the dictionary of sweep.json: one table, and what holds over all cells."""

from __future__ import annotations

import math
from typing import Any

from rational_sae.report import SCHEMA
from rational_sae.report.rows import RSAE, TEACHER, UNTRAINED, against, untrained
from rational_sae.sweep.plan import Plan

AT_L0 = ("fvu_at_l0", "delta_ce_at_l0")
RATIOS = {base.name: (*AT_L0, "l0") if base.name == TEACHER else AT_L0 for base in against() if base.as_base}
"""What is compared with each row, as ratios: below 1 is a gain."""


def summary(
    plan: Plan, reports: dict[str, dict[str, Any]], failed: dict[str, str], rates: dict[str, dict[str, float]]
) -> dict[str, Any]:
    """Cells with their rows, the ratios over headline cells and over development cells, and what failed."""
    cells = {name: _cell(plan, name, report) for name, report in reports.items()}
    headline = {name: cell for name, cell in cells.items() if not cell["development"]}
    development = {name: cell for name, cell in cells.items() if cell["development"]}
    return {
        "schema": SCHEMA,
        "cells": cells,
        "ratios": {"headline": ratios(headline), "development": ratios(development)},
        "rates": rates,
        "failed": failed,
        "missing": [name for name in plan.cells if name not in cells and name not in failed],
    }


def _cell(plan: Plan, name: str, report: dict[str, Any]) -> dict[str, Any]:
    teacher = report["teacher"]
    return {
        "model": teacher["model"],
        "hook": teacher["hook"],
        "family": teacher["family"],
        "d_sae": teacher["d_sae"],
        "development": plan.cells[name].development,
        "rows": report["rows"],
        "intervals": report["intervals"],
        "differences": report["differences"],
        "test_documents": report["data"]["test_documents"],
        "verdict": report["verdict"],
        UNTRAINED: sorted(untrained(report)),
        "seconds": sum(report["timing"].values()),
    }


def ratios(cells: dict[str, dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """rsae over each base: geometric mean over cells, the worst cell, and how many are clearly better or worse."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for base, keys in RATIOS.items():
        for key in keys:
            having = {name: cell for name, cell in cells.items() if _has(cell, base, key) and _has(cell, RSAE, key)}
            if having:
                found.setdefault(base, {})[key] = _ratio(having, base, key)
    return found


def _has(cell: dict[str, Any], row: str, key: str) -> bool:
    """Whether a row is there and has the figure; some cannot be compared at the teacher's L0."""
    return key in cell["rows"].get(row, {})


def _ratio(cells: dict[str, dict[str, Any]], base: str, key: str) -> dict[str, Any]:
    each = {name: cell["rows"][RSAE][key] / cell["rows"][base][key] for name, cell in cells.items()}
    intervals = [cell["differences"][f"{RSAE} - {base}"][key]["interval"] for cell in cells.values()]
    worst = max(each, key=lambda name: each[name])
    positive = all(ratio > 0 for ratio in each.values())
    return {
        "geometric_mean": math.exp(sum(map(math.log, each.values())) / len(each)) if positive else None,
        "worst": each[worst],
        "worst_cell": worst,
        "cells": len(each),
        "clearly_better": sum(high < 0 for _, high in intervals),
        "clearly_worse": sum(low > 0 for low, _ in intervals),
        UNTRAINED: sum(base in untrained(cell) for cell in cells.values()),
    }
