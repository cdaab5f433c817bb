"""Every row with its metrics, and FVU and ΔCE drawn with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from rational_sae.metrics import metric
from rational_sae.report.charts import Figure, Group, Layers, rule_at, scale_of
from rational_sae.report.decision import QUALITY
from rational_sae.report.panels.panel import Content, Panel, tables
from rational_sae.report.rows import TEACHER, strokes
from rational_sae.report.strokes import Stroke
from rational_sae.report.table import table_rows

TEMPLATE = """\
{% if "main" in tables %}
{{ show.results(tables.main, "On test tokens, the same for every row; 95 % bootstrap interval over documents \
underneath. A click on a heading sorts.") }}
{% endif %}
{% if "further" in tables %}
<details><summary>More metrics</summary>
{{ show.results(tables.further, "The remaining metrics") }}
</details>
{% endif %}
{% if group %}
{{ show.charts(group, legend=false) }}
<p class="aside">Bars are 95 % intervals; the dotted line is the teacher. The axes do not start at zero.</p>
{% endif %}
"""


def content(report: Mapping[str, Any]) -> Content | None:
    rows, group = table_rows(report), comparison_group(report)
    found = tables(rows)
    return Content({"tables": found, "group": group}, (group,) if group else (), rows) if found else None


def comparison_group(report: Mapping[str, Any]) -> Group | None:
    """FVU and ΔCE of every row with their intervals, the teacher's as a line to compare with."""
    rows = table_rows(report)
    intervals = report.get("intervals") or {}
    styles = {row.label: stroke for row, stroke in zip(rows, strokes(r.name for r in rows).values(), strict=True)}
    figures = []
    for key in QUALITY:
        points = []
        for row in rows:
            cell = row.cells.get(key)
            if cell and cell.value is not None:
                low, high = ((intervals.get(row.name) or {}).get(key) if cell.interval else None) or (cell.value,) * 2
                text = f"{cell.text} {cell.interval}".strip()
                points.append({"line": row.label, "value": cell.value, "low": low, "high": high, "text": text})
        if len(points) > 1:
            teacher = next((row.cells[key].value for row in rows if row.name == TEACHER), None)
            chart = _error_bars(points, metric(key).label, styles, teacher)
            figures.append(Figure(f"comparison-{key}", metric(key).label, chart))
    return Group("comparison", figures, styles) if figures else None


def _error_bars(
    points: Sequence[Mapping[str, Any]], title: str, styles: Mapping[str, Stroke], teacher: float | None
) -> Layers:
    ends = [end for point in points for end in (point["low"], point["high"])]
    base = alt.Chart(alt.Data(values=list(points))).encode(
        y=alt.Y("line:N", sort=[point["line"] for point in points], title=None),
        color=alt.Color(
            "line:N",
            scale=alt.Scale(domain=list(styles), range=[stroke.colour for stroke in styles.values()]),
            legend=None,
        ),
        tooltip=[alt.Tooltip("line:N", title="row"), alt.Tooltip("text:N", title=title)],
    )
    scale = scale_of(ends)
    bars = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=title, scale=scale), x2="high:Q")
    dots = base.mark_point(size=70, filled=True, opacity=1).encode(x=alt.X("value:Q", title=title, scale=scale))
    rule = [rule_at(alt.X("at:Q", scale=scale), teacher)] if teacher is not None else []
    return alt.layer(*rule, bars, dots)


RESULTS = Panel("results", "Results", TEMPLATE, content)
