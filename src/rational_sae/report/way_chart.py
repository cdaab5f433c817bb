"""Which share of the way from its teacher to the floor each row has gone, drawn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import altair as alt

from rational_sae.metrics import metric
from rational_sae.metrics.floor import WAY, WAY_OWN
from rational_sae.report.charts import Layers, rule_at
from rational_sae.report.pictures import save_picture
from rational_sae.report.strokes import DIAMOND
from rational_sae.report.table import table_rows

WIDTH, LINE_HEIGHT = 560, 44

LOOKS = {WAY: ("#e0561b", "circle"), WAY_OWN: ("#2f86d6", DIAMOND)}
"""Colour and shape of each floor's points."""


def save_way_chart(report: Mapping[str, Any], path: Path) -> None:
    """Writes .html (self-contained), .svg, .png or .json, by the name's end. Raises OutputError."""
    save_picture(way_chart(report), path)


def way_chart(report: Mapping[str, Any]) -> Layers:
    """A line a row, a point a floor with its interval; rules at 0, the teacher, and at 1, the floor."""
    points = way_points(report)
    labels = {key: metric(key).label for key in LOOKS}
    domain = list(labels.values())
    base = alt.Chart(alt.Data(values=points)).encode(
        y=alt.Y("line:N", sort=list(dict.fromkeys(point["line"] for point in points)), title=None),
        yOffset=alt.YOffset("floor:N", sort=domain),
        color=alt.Color(
            "floor:N",
            scale=alt.Scale(domain=domain, range=[colour for colour, _ in LOOKS.values()]),
            legend=alt.Legend(orient="top", title=None),
        ),
    )
    scale = alt.Scale(domain=_domain(points), nice=True)
    x = alt.X("value:Q", title="0: the teacher, 1: the floor", scale=scale, axis=alt.Axis(format="~%"))
    bars = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", scale=scale), x2="high:Q")
    shape = alt.Shape("floor:N", scale=alt.Scale(domain=domain, range=[shape for _, shape in LOOKS.values()]))
    dots = base.mark_point(size=70, filled=True, opacity=1).encode(x=x, shape=shape)
    words = base.mark_text(align="left", dx=8, dy=-9).encode(x=x, text="text:N")
    rules = [rule_at(alt.X("at:Q", scale=scale), at) for at in (0.0, 1.0)]
    lines = len({point["line"] for point in points})
    title = alt.TitleParams(
        "Way from the teacher to the floor",
        subtitle="FVU on test tokens at the teacher's L0; bars: 95 % intervals",
        anchor="start",
    )
    return alt.layer(*rules, bars, dots, words, title=title).properties(
        width=WIDTH, height=LINE_HEIGHT * max(1, lines), background="white", padding=12
    )


def way_points(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the chart draws: row, floor, share and its interval."""
    intervals = report.get("intervals") or {}
    return [
        {
            "line": row.label,
            "floor": metric(key).label,
            "value": cell.value,
            "low": interval[0],
            "high": interval[1],
            "text": f"{cell.value:.1%}",
        }
        for row in table_rows(report)
        for key in LOOKS
        for cell in [row.cells.get(key)]
        if cell is not None and cell.value is not None
        for interval in [(intervals.get(row.name) or {}).get(key) or (cell.value, cell.value)]
    ]


def _domain(points: list[dict[str, Any]]) -> list[float]:
    """Both rules and every interval."""
    return [min([0.0, *(point["low"] for point in points)]), max([1.0, *(point["high"] for point in points)])]
