"""FVU and ΔCE against L0: the rows of one report, and for a sweep a pair of figures for each hook and family."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import altair as alt

from rational_sae.metrics import metric
from rational_sae.report.charts import Figure, Group, Layers, lines_of, shape_of
from rational_sae.report.decision import QUALITY
from rational_sae.report.numbers import format_interval, format_value
from rational_sae.report.rows import UNTRAINED, in_order, row_label, shown_in_sweep, strokes, untrained
from rational_sae.report.strokes import Stroke


def pareto_group(report: Mapping[str, Any]) -> Group | None:
    """Every row of a report that has an L0: a point and its interval."""
    rows = _rows([report])
    kept = untrained(report)
    styles = _styles(rows, kept)
    figures = []
    for quantity in QUALITY:
        points = list(_points(report, rows, quantity, kept))
        if len(points) > 1:
            figures.append(Figure(f"pareto-{quantity}", metric(quantity).label, _plot(points, quantity, styles)))
    return Group("pareto", figures, styles, "points") if figures else None


def pareto_groups(found: Mapping[str, Any]) -> list[Group]:
    """One group of two figures for each (model, hook, family) of a sweep, in the order of the cells."""
    cells: Mapping[str, Mapping[str, Any]] = found["cells"]
    keys = dict.fromkeys((cell["model"], cell["hook"], cell["family"]) for cell in cells.values())
    return [
        _group(
            key, {n: cell for n, cell in cells.items() if (cell["model"], cell["hook"], cell["family"]) == key}, number
        )
        for number, key in enumerate(keys)
    ]


def _group(key: tuple[str, str, str], cells: Mapping[str, Mapping[str, Any]], number: int) -> Group:
    model, hook, family = key
    rows = shown_in_sweep(_rows(cells.values()))
    styles = _styles(rows)
    figures = []
    for quantity in QUALITY:
        points = [point for name, cell in cells.items() for point in _points(cell, rows, quantity, cell=name)]
        chart = _plot(points, quantity, styles, joined=len(cells) > 1)
        title = f"{metric(quantity).label}: {family} of {model}, {hook}"
        figures.append(Figure(f"pareto-{number}-{quantity}", title, chart))
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", "-".join(key))
    return Group(f"pareto-{slug}", figures, styles, "both")


def _rows(holders: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of the rows that any of the holders has an L0 for, in the order of display."""
    found = (name for holder in holders for name, row in holder["rows"].items() if row.get("l0") is not None)
    return in_order(dict.fromkeys(found))


def _styles(rows: Iterable[str], kept: Collection[str] = ()) -> dict[str, Stroke]:
    return {row_label(row, kept): stroke for row, stroke in strokes(rows).items()}


def _points(
    holder: Mapping[str, Any],
    rows: Iterable[str],
    quantity: str,
    kept: Collection[str] = (),
    *,
    cell: str | None = None,
) -> Iterator[dict[str, Any]]:
    """One a row of a report, or of a sweep's cell. kept: untrained rows, which a report's lines are called."""
    for row in rows:
        values = holder["rows"].get(row) or {}
        l0, value = values.get("l0"), values.get(quantity)
        if l0 is None or value is None:
            continue
        interval = ((holder.get("intervals") or {}).get(row) or {}).get(quantity)
        written = format_interval(quantity, interval)
        low, high = interval if interval and written else (value, value)
        said = UNTRAINED if row in untrained(holder) else ""
        yield {
            "line": row_label(row, kept),
            "l0": l0,
            "value": value,
            "low": low,
            "high": high,
            "text": " ".join(filter(None, (format_value(quantity, value), written, said))),
            "at": format_value("l0", l0),
        } | ({} if cell is None else {"cell": cell})


WINDOW = 0.2
"""Share of L0 on both sides of the first row's that is shown at least: closer up, noise looks like a frontier."""
LINE = 1 / 14
"""Of the height of a plot, for one line of a label."""
ROOM = 0.36
"""Of the width of the points of several cells, for the labels right of the last."""


def _l0_scale(points: list[dict[str, Any]]) -> alt.Scale:
    """Logarithmic where L0 spreads by more than a factor of 2, and at least WINDOW wide."""
    found, first = [point["l0"] for point in points], points[0]["l0"]
    if max(found) > 2 * min(found) > 0:
        spread = max(found) / min(found)
        return alt.Scale(type="log", nice=False, domain=[min(found) / spread**0.04, max(found) * spread**ROOM])
    return alt.Scale(domain=[min(*found, (1 - WINDOW) * first), max(*found, (1 + WINDOW) * first)], zero=False)


def apart(values: Iterable[float], step: float) -> list[float]:
    """Sorted values moved as little as it takes for a step between neighbours: those that crowd share their mean.

    >>> apart([0.0, 0.0, 5.0], 1.0)
    [-0.5, 0.5, 5.0]
    """
    crowds: list[list[float]] = []
    for value in sorted(values):
        crowds.append([value])
        while len(crowds) > 1 and _bottom(crowds[-1], step) < _bottom(crowds[-2], step) + step * len(crowds[-2]):
            last = crowds.pop()
            crowds[-1] += last
    return [_bottom(crowd, step) + step * at for crowd in crowds for at in range(len(crowd))]


def _bottom(crowd: list[float], step: float) -> float:
    return sum(crowd) / len(crowd) - step * (len(crowd) - 1) / 2


def _labels(points: list[dict[str, Any]], styles: Mapping[str, Stroke]) -> alt.Chart:
    """The rows' names in their colours, in a column right of the densest mark, none upon another."""
    ends = [end for point in points for end in (point["low"], point["high"])]
    step = LINE * ((max(ends) - min(ends)) or 1.0)
    last = {point["line"]: point for point in sorted(points, key=lambda one: one["l0"])}
    shown = sorted(last.values(), key=lambda one: one["value"])
    placed = [
        {"line": point["line"], "l0": max(one["l0"] for one in points), "at": at}
        for point, at in zip(shown, apart((one["value"] for one in shown), step), strict=True)
    ]
    colour = alt.Scale(domain=list(styles), range=[stroke.colour for stroke in styles.values()])
    return (
        alt.Chart(alt.Data(values=placed))
        .mark_text(align="left", dx=12, fontSize=11)
        .encode(x="l0:Q", y="at:Q", text="line:N", color=alt.Color("line:N", scale=colour, title=None))
    )


def _plot(points: list[dict[str, Any]], quantity: str, styles: Mapping[str, Stroke], *, joined: bool = False) -> Layers:
    scale = _l0_scale(points)
    tooltip = [alt.Tooltip("line:N", title="row"), alt.Tooltip("at:N", title="L0")]
    tooltip += [alt.Tooltip("text:N", title=metric(quantity).label)]
    if "cell" in points[0]:
        tooltip.insert(0, alt.Tooltip("cell:N", title="cell"))
    lines = lines_of(points, "l0", "line", styles).encode(
        x=alt.X("l0:Q", title="L0", scale=scale),
        y=alt.Y("value:Q", title=metric(quantity).label, scale=alt.Scale(zero=False, padding=10)),
    )
    bars = lines.mark_rule(strokeWidth=1.5, opacity=0.6).encode(
        y=alt.Y("low:Q", title=metric(quantity).label),
        y2="high:Q",
        strokeDash=alt.value([1, 0]),
    )
    dots = lines.mark_point(filled=True, size=90, opacity=0.9).encode(
        shape=shape_of("line", styles), strokeDash=alt.value([1, 0]), tooltip=tooltip
    )
    return alt.layer(*([lines] if joined else []), bars, dots, _labels(points, styles))
