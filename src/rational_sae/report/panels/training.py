"""What was minimised, the sparsity that it was held to, and what validation said."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from rational_sae.report.charts import Figure, Group, lines_of, rule_at, scale_of
from rational_sae.report.numbers import format_value
from rational_sae.report.panels.panel import Content, Panel
from rational_sae.report.rows import in_order, row_label, strokes, untrained
from rational_sae.report.strokes import Stroke

MOST_POINTS = 250
"""Longer curves are averaged in blocks: more points than pixels only make the page heavy."""

CURVES = {
    "mse": "Squared error of a batch",
    "l0": "L0",
    "sparsity_weight": "Sparsity weight",
    "kl": "KL of predictions",
}
"""What is logged of steps, drawn where it is there."""
WORDS = {"mse": "In training units, where x has mean norm √d_in; the MSE of Results is in the model's."}

TEMPLATE = """\
{{ show.charts(group) }}
"""


def content(report: Mapping[str, Any]) -> Content | None:
    group = training_group(report)
    return Content({"group": group}, (group,)) if group else None


def training_group(report: Mapping[str, Any]) -> Group | None:
    """What was minimised, the sparsity it was held to, and what validation said."""
    curves = report.get("curves") or {}
    train, validation = curves.get("train") or {}, curves.get("validation") or {}
    styles = strokes(in_order([*train, *(name for name in validation if name not in train)]))
    if not styles:
        return None
    labels = {name: row_label(name, untrained(report)) for name in styles}
    legend = {labels[name]: stroke for name, stroke in styles.items()}
    figures = []
    for key, title in CURVES.items():
        points, block = _curve_points(train, key, labels)
        layers = [_curve(points, legend, title)] if points else []
        notes = [WORDS[key]] if key in WORDS else []
        notes += [f"Each point is the mean of {block} logged steps."] if block > 1 else []
        if key == "l0":
            seen, _ = _curve_points(validation, key, labels)
            if seen:
                layers.append(_curve(seen, legend, title, mark="point"))
                notes.append("Circles: validation.")
            if layers and curves.get("target_l0") is not None:
                layers.append(rule_at(alt.Y("at:Q"), curves["target_l0"]))
                target = format_value("l0", curves["target_l0"])
                notes.append(f"Dotted line: the target, {target}, the teacher's on validation less one standard error.")
        if key == "kl" and (seen := _curve_points(validation, key, labels)[0]):
            layers.append(_curve(seen, legend, title, mark="point"))
            notes.append("Circles: validation.")
        if layers:
            figures.append(Figure(f"training-{key}", title, alt.layer(*layers), tuple(notes)))
    figures += _validation(validation, legend, labels)
    return Group("training", figures, legend) if figures else None


def _validation(validation: Mapping[str, Any], legend: Mapping[str, Stroke], labels: Mapping[str, str]) -> list[Figure]:
    points, _ = _curve_points(validation, "fvu", labels)
    if not points:
        return []
    kept = {name: curve.get("kept_step") for name, curve in validation.items() if curve.get("kept_step") is not None}
    marks = [point for point in points if kept.get(point["name"]) == point["step"]]
    layers = [_curve(points, legend, "FVU")]
    if marks:
        layers.append(_curve(marks, legend, "FVU", mark="diamond"))
    listed = ", ".join(f"{labels[name]} {format_value('step', step)}" for name, step in kept.items())
    notes = (f"Diamonds: the step that was kept ({listed}).",) if kept else ()
    return [Figure("validation-fvu", "Validation FVU", alt.layer(*layers), notes)]


def _curve_points(curves: Mapping[str, Any], key: str, labels: Mapping[str, str]) -> tuple[list[dict[str, Any]], int]:
    """Every row's points, averaged in blocks of the size also returned."""
    curves = {name: curves[name] for name in in_order(curves) if curves[name].get(key)}
    block = max((math.ceil(len(curve["step"]) / MOST_POINTS) for curve in curves.values()), default=1)
    points = []
    for name, curve in curves.items():
        pairs = [(s, v) for s, v in zip(curve["step"], curve[key], strict=True) if v is not None]
        for start in range(0, len(pairs), block):
            steps, values = zip(*pairs[start : start + block], strict=True)
            step, value = sum(steps) / len(steps), sum(values) / len(values)
            points.append({"name": name, "line": labels[name], "step": step, "value": float(f"{value:.6g}")})
    return points, block


def _curve(
    points: Sequence[Mapping[str, Any]], legend: Mapping[str, Stroke], title: str, mark: str = "line"
) -> alt.Chart:
    chart = lines_of([{k: v for k, v in p.items() if k != "name"} for p in points], "step", "line", legend)
    if mark == "point":
        chart = chart.mark_point(size=22, strokeWidth=1.3)
    elif mark == "diamond":
        chart = chart.mark_point(size=110, shape="diamond", filled=True, opacity=1)
    return chart.encode(
        x=alt.X("step:Q", title="step"), y=alt.Y("value:Q", title=title, scale=scale_of([p["value"] for p in points]))
    )


TRAINING = Panel("training", "Training", TEMPLATE, content)
