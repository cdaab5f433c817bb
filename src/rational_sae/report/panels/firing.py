"""How often latents fire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt

from rational_sae.report.charts import Figure, Group, lines_of
from rational_sae.report.numbers import format_value
from rational_sae.report.panels.panel import Content, Panel
from rational_sae.report.rows import in_order, row_label, strokes, untrained
from rational_sae.report.schema import nouns

TEMPLATE = """\
{% if group %}
{{ show.charts(group) }}
{% endif %}
{% if dead %}
{{ show.facts_table("Latents that never fired", dead) }}
{% endif %}
"""


def content(report: Mapping[str, Any]) -> Content | None:
    group, dead = firing_group(report), _dead(report)
    return Content({"group": group, "dead": dead}, (group,) if group else ()) if group or dead else None


def firing_group(report: Mapping[str, Any]) -> Group | None:
    """How many latents fire how often, one outline a row."""
    firing = report.get("firing")
    if not firing or not firing["counts"]:
        return None
    styles, kept = strokes(in_order(firing["counts"])), untrained(report)
    edges = [10.0**edge for edge in firing["edges_log10"]]
    points = [
        {"frequency": edge, "line": row_label(name, kept), "latents": count}
        for name in styles
        # The last count is drawn up to the last edge, and the outline falls to zero there.
        for edge, count in zip(edges, [*firing["counts"][name], 0], strict=True)
        if count is not None
    ]
    labels = {row_label(name, kept): stroke for name, stroke in styles.items()}
    chart = lines_of(points, "frequency", "line", labels, interpolate="step-after").encode(
        x=alt.X(
            "frequency:Q",
            title=f"share of {nouns(report)[0]} on which a latent is active",
            scale=alt.Scale(type="log", nice=False),
            axis=alt.Axis(format="~g", tickCount=6),
        ),
        y=alt.Y("latents:Q", title="latents"),
    )
    return Group("firing", [Figure("firing", "Firing frequency", alt.layer(chart))], labels)


def _dead(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    dead = (report.get("firing") or {}).get("dead") or {}
    return [(row_label(name, untrained(report)), format_value("dead", dead[name])) for name in in_order(dead)]


FIRING = Panel("firing-frequency", "Firing frequency", TEMPLATE, content)
