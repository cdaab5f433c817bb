"""FVU and ΔCE against L0 for every row: one pair of panels for each hook and family of a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt

from .charts import Group, Layers, Panel, lines_of
from .palette import strokes
from .sweep_table import HIDDEN
from .vocabulary import ROWS, in_order, metric, row_label


def pareto_groups(found: Mapping[str, Any]) -> list[Group]:
    """One group of two panels for each (model, hook, family), in the order of the cells."""
    cells = found["cells"].values()
    keys = dict.fromkeys((cell["model"], cell["hook"], cell["family"]) for cell in cells)
    return [
        _group(key, [cell for cell in cells if (cell["model"], cell["hook"], cell["family"]) == key]) for key in keys
    ]


def _group(key: tuple[str, str, str], cells: list[Mapping[str, Any]]) -> Group:
    model, hook, family = key
    rows = [r for r in in_order(dict.fromkeys(r for c in cells for r in c["rows"]), ROWS) if r not in HIDDEN]
    styles = {row_label(row): stroke for row, stroke in zip(rows, strokes(rows).values(), strict=True)}
    slug = "-".join(part.replace(".", "-").replace("/", "-") for part in key)
    panels = []
    for quantity in ("fvu", "delta_ce"):
        points = [
            {"line": row_label(row), "l0": cell["rows"][row]["l0"], "value": cell["rows"][row][quantity]}
            for cell in cells
            for row in rows
            if row in cell["rows"] and cell["rows"][row][quantity] is not None
        ]
        panels.append(
            Panel(
                f"{slug}-{quantity}",
                f"{metric(quantity).label}: {family}, {model} {hook}",
                _plot(points, quantity, styles),
            )
        )
    return Group(f"pareto-{slug}", panels, styles)


def _plot(points: list[dict[str, Any]], quantity: str, styles: Any) -> Layers:
    lines = lines_of(points, "l0", "line", styles).encode(
        x=alt.X("l0:Q", title="L0", scale=alt.Scale(type="log", nice=False, padding=12)),
        y=alt.Y("value:Q", title=metric(quantity).label, scale=alt.Scale(zero=False, padding=8)),
    )
    return alt.layer(lines, lines.mark_point(filled=True, size=40, opacity=1))
