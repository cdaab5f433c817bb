"""The measurements drawn: points measured, dashed lines predicted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import altair as alt

WIDTH, HEIGHT = 340, 250
COLOURS = ("#e0561b", "#2f86d6", "#2e9b5b", "#a06cc8")


def save_theory_figures(found: dict[str, Any], out: Path) -> list[Path]:
    """theory-sign.png, theory-relu.png, theory-gates.png and theory-converse.png."""
    points = found["points"]
    charts = {
        "sign": alt.hconcat(_decay(points, "sign", "sign on a gap set"), _rates(found["decay"])),
        "relu": alt.hconcat(_relu(points)),
        "gates": alt.hconcat(
            _decay(points, "jumprelu", f"JumpReLU, θ = {found['threshold']:g}"),
            _decay(points, "topk", "TopK with its threshold supplied"),
        ),
        "converse": alt.hconcat(
            _needs(found["needs"], "width", "width"), _needs(found["needs"], "active_max", "active at the worst x")
        ),
    }
    written = []
    for name, chart in charts.items():
        path = out / f"theory-{name}.png"
        dressed = chart.configure_view(stroke=None).configure_axis(gridColor="#e4e4e4", titleFontWeight="normal")
        dressed.configure_legend(titleFontWeight="normal").properties(background="white", padding=12).save(str(path))
        written.append(path)
    return written


def _log(channel: type, field: str, title: str, **axis: Any) -> Any:
    return channel(f"{field}:Q", title=title, scale=alt.Scale(type="log"), axis=alt.Axis(tickCount=6, **axis))


def _panel(chart: Any, title: str) -> Any:
    return chart.properties(width=WIDTH, height=HEIGHT, title=alt.TitleParams(title, anchor="start"))


def _decay(points: list[dict[str, Any]], statement: str, title: str) -> Any:
    """Error against degree, one line a gap."""
    rows = [{**point, "δ": f"{point['gap']:g}"} for point in points if point["statement"] == statement]
    scale = alt.Scale(domain=sorted({row["δ"] for row in rows}, key=float, reverse=True), range=list(COLOURS))
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X(
            "degree:Q",
            title="degree of the denominator",
            scale=alt.Scale(zero=False, nice=False, padding=12),
            axis=alt.Axis(values=sorted({row["degree"] for row in rows}), format="d"),
        ),
        color=alt.Color("δ:N", scale=scale, title="gap δ"),
    )
    best = "best error" if statement != "topk" else "largest error"
    predicted = base.mark_line(strokeDash=[5, 3]).encode(
        y=_log(alt.Y, "predicted", f"{best}; dashed: theory", format="~e")
    )
    return _panel(predicted + base.mark_point(filled=True, size=45, opacity=1).encode(y="error:Q"), title)


def _rates(decays: list[dict[str, Any]]) -> Any:
    """Measured against predicted decay per degree, all statements."""
    ends = [min(row["predicted"] for row in decays) * 0.9, max(row["predicted"] for row in decays) * 1.1]
    line = alt.Chart(alt.Data(values=[{"x": end, "y": end} for end in ends])).mark_line(
        strokeDash=[5, 3], color="#808080"
    )
    dots = alt.Chart(alt.Data(values=decays)).mark_point(size=60, filled=True, opacity=1, color="#404040")
    chart = line.encode(x=alt.X("x:Q", title="predicted −d log E / d degree", scale=alt.Scale(zero=False)), y="y:Q")
    chart = chart + dots.encode(
        x="predicted:Q",
        y=alt.Y("decay:Q", title="measured", scale=alt.Scale(zero=False)),
        shape=alt.Shape("statement:N", title=None),
    )
    return _panel(chart, "Exponential rates")


def _relu(points: list[dict[str, Any]]) -> Any:
    rows = [{**point, "root": point["degree"] ** 0.5} for point in points if point["statement"] == "relu"]
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("root:Q", title="√q, type (q + 1, q)", scale=alt.Scale(zero=False))
    )
    predicted = base.mark_line(strokeDash=[5, 3], color="#808080").encode(
        y=_log(alt.Y, "predicted", "best error; dashed: 4 exp(−π√q)", format="~e")
    )
    return _panel(
        predicted + base.mark_point(filled=True, size=45, color=COLOURS[0], opacity=1).encode(y="error:Q"), "ReLU"
    )


def _needs(needs: list[dict[str, Any]], key: str, title: str) -> Any:
    """What the constructions need against ε, and the bounds that hold for every construction."""
    bound = {"width": "width_bound", "active_max": "active_bound"}[key]
    names = {"relu": "ReLU, JumpReLU", "topk": "TopK, k = 1"}
    rows = [
        {**need, "family": names[need["family"]], "count": need[key], "bound": need[bound]}
        for need in needs
        if need["family"] in names
    ]
    scale = alt.Scale(domain=list(names.values()), range=[COLOURS[0], COLOURS[1]])
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X(
            "epsilon:Q",
            title="sup error ε",
            scale=alt.Scale(type="log", reverse=True),
            axis=alt.Axis(format="~e", tickCount=5),
        ),
        color=alt.Color("family:N", scale=scale, title=None),
    )
    bounds = base.transform_filter("datum.bound > 1").mark_line(strokeDash=[5, 3])
    chart = bounds.encode(y=_log(alt.Y, "bound", "units; dashed: lower bound"))
    return _panel(chart + base.mark_point(filled=True, size=45, opacity=1).encode(y="count:Q"), title)
