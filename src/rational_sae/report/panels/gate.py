"""The gate before and after, over the pre-activations that it meets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import altair as alt

from rational_sae.report.charts import INK, Figure, Group, lines_of, rule_at
from rational_sae.report.panels.panel import Content, Panel
from rational_sae.report.rows import ROWS, RSAE, TEACHER
from rational_sae.report.strokes import Stroke

MOST_DECADES = 8
"""Below the peak of a histogram. Counts never reach so far down; a smoothed density does."""

GATES: dict[str, Stroke] = {
    "teacher": ROWS[TEACHER].stroke,
    "initial": ROWS["init"].stroke,
    "fine-tuned": ROWS[RSAE].stroke,
}
"""The curves of the gate plot."""

TEMPLATE = """\
<p>{{ description }}</p>
{{ show.charts(group) }}
"""


def content(report: Mapping[str, Any]) -> Content | None:
    group = gate_group(report)
    return Content({"description": report["gate"]["description"], "group": group}, (group,)) if group else None


def gate_group(report: Mapping[str, Any]) -> Group | None:
    """The gate before and after, over the pre-activations it meets; and its departure from the teacher's."""
    gate = report.get("gate")
    if not gate:
        return None
    keys = {"teacher": "teacher", "initial": "initial", "fine-tuned": "final"}
    threshold = gate.get("threshold")
    points = [
        {"t": t, "line": line, "value": value, "departure": _departure(value, gate["teacher"][i], threshold)}
        for line, key in keys.items()
        for i, (t, value) in enumerate(zip(gate["t"], gate[key], strict=True))
        if value is not None
    ]
    domain = alt.Scale(domain=[min(gate["t"], default=-1), max(gate["t"], default=1)], nice=False)
    lines = lines_of(points, "t", "line", GATES).encode(x=alt.X("t:Q", title="t = h / scale", scale=domain))
    rule = [rule_at(alt.X("at:Q", scale=domain), threshold)] if threshold is not None else []
    value = lines.encode(y=alt.Y("value:Q", title="gate value"))
    departure = lines.encode(y=alt.Y("departure:Q", title="gate − teacher's gate"))
    bars = _histogram(gate.get("histogram"), domain)
    over = alt.layer(*bars, alt.layer(value, *rule)).resolve_scale(y="independent")
    notes = [f"Dotted line: the threshold, t = {threshold:.3g}."] if rule else []
    if bars:
        notes.append("Bars: density of the pre-activations, on a logarithmic axis.")
    apart = any(point["departure"] is None for point in points)
    left_out = ("Left out where one of the two is 0 and the other is not: the threshold moved there.",) if apart else ()
    return Group(
        "gate",
        [
            Figure("gate-value", "Gate and pre-activations", over, tuple(notes)),
            Figure("gate-departure", "Departure from the teacher's gate", alt.layer(departure, *rule), left_out),
        ],
        GATES,
    )


def _histogram(histogram: Mapping[str, Any] | None, domain: alt.Scale) -> list[alt.Chart]:
    """Bars on a logarithmic density axis, from a floor below the rarest bin so that the tail is visible."""
    edges, density = (histogram["edges"], histogram["density"]) if histogram else ([0], [])
    lowest = max((height or 0 for height in density), default=0) / 10**MOST_DECADES
    bins = [
        (left, right, height)
        for left, right, height in zip(edges[:-1], edges[1:], density, strict=True)
        if height and height > lowest
    ]
    if not bins:
        return []
    floor = 10 ** math.floor(math.log10(min(height for *_, height in bins) / 1.01))
    bars = [{"t": left, "to": right, "density": height, "floor": floor} for left, right, height in bins]
    scale = alt.Scale(type="log", domainMin=floor, nice=True)
    axis = alt.Axis(orient="right", grid=False, tickCount=5, format="~e")
    return [
        alt.Chart(alt.Data(values=bars))
        .mark_bar(color=INK, opacity=0.28, clip=True)
        .encode(
            x=alt.X("t:Q", scale=domain),
            x2="to:Q",
            y=alt.Y("density:Q", title="density (log)", scale=scale, axis=axis),
            y2="floor:Q",
        )
    ]


def _departure(value: float, teacher: float | None, threshold: float | None) -> float | None:
    """None where a threshold alone makes it: the jump would flatten all the rest."""
    if teacher is None or (threshold is not None and (value == 0) != (teacher == 0)):
        return None
    return value - teacher


GATE = Panel("gate", "The gate", TEMPLATE, content)
