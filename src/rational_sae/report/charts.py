"""The report's charts, one small panel each, drawn by Altair from a checked report.

A panel has no legend and no width of its own: the page writes one legend for a group and lets panels follow the
window, the figures set both. Importing this module imports Altair, so others import it when they draw.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import altair as alt

from rational_sae.metrics import metric
from rational_sae.report.numbers import format_value
from rational_sae.report.rows import ROWS, RSAE, TEACHER, in_order, row_label, strokes
from rational_sae.report.strokes import Stroke
from rational_sae.report.table import table_rows

MOST_POINTS = 250
"""Longer curves are averaged in blocks: more points than pixels only make the page heavy."""
MOST_DECADES = 8
"""Below the peak of a histogram. Counts never reach so far down; a smoothed density does."""
INK = "#808080"
"""Rules and bars that belong to no row: legible on white and on black."""
VEGA_LITE = ".".join(alt.SCHEMA_VERSION.split(".")[:2])
"""The version of Vega-Lite that the installed Altair writes, as vl-convert names it."""

GATES: dict[str, Stroke] = {
    "teacher": ROWS[TEACHER].stroke,
    "initial": ROWS["init"].stroke,
    "fine-tuned": ROWS[RSAE].stroke,
}
"""The curves of the gate plot."""

Layers = alt.LayerChart | alt.FacetChart
"""What Altair's types say of layered charts; none here is faceted."""


@dataclass(frozen=True)
class Panel:
    """One chart and the words around it."""

    name: str
    title: str
    chart: Layers
    notes: tuple[str, ...] = ()
    """Sentences on what is drawn how."""


@dataclass(frozen=True)
class Group:
    """Panels that share a legend: label → stroke."""

    name: str
    panels: list[Panel]
    legend: dict[str, Stroke]
    marks: Literal["lines", "points", "both"] = "lines"
    """What the legend shows of a stroke."""


def gate_group(report: Mapping[str, Any]) -> Group | None:
    """The gate before and after, over the pre-activations it meets; and its departure from the teacher's."""
    gate = report.get("gate")
    if not gate:
        return None
    keys = {"teacher": "teacher", "initial": "initial", "fine-tuned": "final"}
    points = [
        {"t": t, "line": line, "value": value, "departure": _minus(value, gate["teacher"][i])}
        for line, key in keys.items()
        for i, (t, value) in enumerate(zip(gate["t"], gate[key], strict=True))
        if value is not None
    ]
    domain = alt.Scale(domain=[min(gate["t"], default=-1), max(gate["t"], default=1)], nice=False)
    lines = lines_of(points, "t", "line", GATES).encode(x=alt.X("t:Q", title="t = h / scale", scale=domain))
    threshold = gate.get("threshold")
    rule = [_rule(alt.X("at:Q", scale=domain), threshold)] if threshold is not None else []
    value = lines.encode(y=alt.Y("value:Q", title="gate value"))
    departure = lines.encode(y=alt.Y("departure:Q", title="gate − teacher's gate"))
    bars = _histogram(gate.get("histogram"), domain)
    over = alt.layer(*bars, alt.layer(value, *rule)).resolve_scale(y="independent")
    notes = [f"Dotted line: the threshold, t = {format_value('threshold', threshold)}."] if rule else []
    if bars:
        notes.append("Bars: density of the pre-activations, on a logarithmic axis.")
    return Group(
        "gate",
        [
            Panel("gate-value", "Gate and pre-activations", over, tuple(notes)),
            Panel("gate-departure", "Departure from the teacher's gate", alt.layer(departure, *rule)),
        ],
        GATES,
    )


def training_group(report: Mapping[str, Any]) -> Group | None:
    """What was minimised, the sparsity it was held to, and what validation said."""
    curves = report.get("curves") or {}
    train, validation = curves.get("train") or {}, curves.get("validation") or {}
    styles = strokes(in_order([*train, *(name for name in validation if name not in train)]))
    if not styles:
        return None
    panels = []
    for key, title in (("mse", "Training MSE"), ("l0", "L0"), ("sparsity_weight", "Sparsity weight")):
        points, block = _curve_points(train, key)
        layers = [_curve(points, styles, title)] if points else []
        notes = [f"Each point is the mean of {block} logged steps."] if block > 1 else []
        if key == "l0":
            seen, _ = _curve_points(validation, key)
            if seen:
                layers.append(_curve(seen, styles, title, mark="point"))
                notes.append("Circles: validation.")
            if layers and curves.get("target_l0") is not None:
                layers.append(_rule(alt.Y("at:Q"), curves["target_l0"]))
                notes.append(f"Dotted line: the target, {format_value('l0', curves['target_l0'])}.")
        if layers:
            panels.append(Panel(f"training-{key}", title, alt.layer(*layers), tuple(notes)))
    panels += _validation_panel(validation, styles)
    return Group("training", panels, {row_label(name): s for name, s in styles.items()}) if panels else None


def firing_group(report: Mapping[str, Any]) -> Group | None:
    """How many latents fire how often, one outline a row."""
    firing = report.get("firing")
    if not firing or not firing["counts"]:
        return None
    styles = strokes(in_order(firing["counts"]))
    edges = [10.0**edge for edge in firing["edges_log10"]]
    points = [
        {"frequency": edge, "line": row_label(name), "latents": count}
        for name in styles
        # The last count is drawn up to the last edge, and the outline falls to zero there.
        for edge, count in zip(edges, [*firing["counts"][name], 0], strict=True)
        if count is not None
    ]
    labels = {row_label(name): stroke for name, stroke in styles.items()}
    chart = lines_of(points, "frequency", "line", labels, interpolate="step-after").encode(
        x=alt.X(
            "frequency:Q",
            title="share of tokens on which a latent is active",
            scale=alt.Scale(type="log", nice=False),
            axis=alt.Axis(format="~g", tickCount=6),
        ),
        y=alt.Y("latents:Q", title="latents"),
    )
    return Group("firing", [Panel("firing", "Firing frequency", alt.layer(chart))], labels)


def comparison_group(report: Mapping[str, Any]) -> Group | None:
    """FVU and ΔCE of every row with their intervals, the teacher's as a line to compare with."""
    rows = table_rows(report)
    intervals = report.get("intervals") or {}
    styles = {row.label: stroke for row, stroke in zip(rows, strokes(r.name for r in rows).values(), strict=True)}
    panels = []
    for key in ("fvu", "delta_ce"):
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
            panels.append(Panel(f"comparison-{key}", metric(key).label, chart))
    return Group("comparison", panels, styles) if panels else None


def _validation_panel(validation: Mapping[str, Any], styles: Mapping[str, Stroke]) -> list[Panel]:
    points, _ = _curve_points(validation, "fvu")
    if not points:
        return []
    kept = {name: curve.get("kept_step") for name, curve in validation.items() if curve.get("kept_step") is not None}
    marks = [point for point in points if kept.get(point["name"]) == point["step"]]
    layers = [_curve(points, styles, "FVU")]
    if marks:
        layers.append(_curve(marks, styles, "FVU", mark="diamond"))
    listed = ", ".join(f"{row_label(name)} {format_value('step', step)}" for name, step in kept.items())
    notes = (f"Diamonds: the step that was kept ({listed}).",) if kept else ()
    return [Panel("validation-fvu", "Validation FVU", alt.layer(*layers), notes)]


def _curve_points(curves: Mapping[str, Any], key: str) -> tuple[list[dict[str, Any]], int]:
    """Every row's points, averaged in blocks of the size also returned."""
    curves = {name: curves[name] for name in in_order(curves) if curves[name].get(key)}
    block = max((math.ceil(len(curve["step"]) / MOST_POINTS) for curve in curves.values()), default=1)
    points = []
    for name, curve in curves.items():
        pairs = [(s, v) for s, v in zip(curve["step"], curve[key], strict=True) if v is not None]
        for start in range(0, len(pairs), block):
            steps, values = zip(*pairs[start : start + block], strict=True)
            step, value = sum(steps) / len(steps), sum(values) / len(values)
            points.append({"name": name, "line": row_label(name), "step": step, "value": float(f"{value:.6g}")})
    return points, block


def _curve(
    points: Sequence[Mapping[str, Any]], styles: Mapping[str, Stroke], title: str, mark: str = "line"
) -> alt.Chart:
    labels = {row_label(name): stroke for name, stroke in styles.items()}
    chart = lines_of([{k: v for k, v in p.items() if k != "name"} for p in points], "step", "line", labels)
    if mark == "point":
        chart = chart.mark_point(size=22, strokeWidth=1.3)
    elif mark == "diamond":
        chart = chart.mark_point(size=110, shape="diamond", filled=True, opacity=1)
    return chart.encode(
        x=alt.X("step:Q", title="step"), y=alt.Y("value:Q", title=title, scale=_scale([p["value"] for p in points]))
    )


def shape_of(line: str, styles: Mapping[str, Stroke]) -> alt.Shape:
    """Points in their rows' shapes."""
    scale = alt.Scale(domain=list(styles), range=[stroke.shape for stroke in styles.values()])
    return alt.Shape(f"{line}:N", scale=scale, title=None)


def lines_of(
    points: Sequence[Mapping[str, Any]], order: str, line: str, styles: Mapping[str, Stroke], **mark: Any
) -> alt.Chart:
    """Lines in their rows' colours and dashes."""
    names = list(styles)
    colour = alt.Scale(domain=names, range=[stroke.colour for stroke in styles.values()])
    dash = alt.Scale(domain=names, range=[list(stroke.dash) for stroke in styles.values()])
    return (
        alt.Chart(alt.Data(values=list(points)))
        .mark_line(**mark)
        .encode(
            color=alt.Color(f"{line}:N", scale=colour, title=None),
            strokeDash=alt.StrokeDash(f"{line}:N", scale=dash, title=None),
            order=alt.Order(f"{order}:Q"),
        )
    )


def _rule(encoding: alt.X | alt.Y, at: float) -> alt.Chart:
    rule = alt.Chart(alt.Data(values=[{"at": at}])).mark_rule(color=INK, strokeDash=[1, 3], strokeWidth=1.5)
    return rule.encode(x=encoding) if isinstance(encoding, alt.X) else rule.encode(y=encoding)


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
    scale = _scale(ends)
    bars = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=title, scale=scale), x2="high:Q")
    dots = base.mark_point(size=70, filled=True, opacity=1).encode(x=alt.X("value:Q", title=title, scale=scale))
    rule = [_rule(alt.X("at:Q", scale=scale), teacher)] if teacher is not None else []
    return alt.layer(*rule, bars, dots)


def _scale(values: Sequence[float]) -> alt.Scale:
    """Logarithmic where the values span more than a factor of 20 (by eye), else linear; never forced to zero."""
    wide = min(values) > 0 and max(values) > 20 * min(values)
    return alt.Scale(type="log") if wide else alt.Scale(zero=False)


def _minus(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other
