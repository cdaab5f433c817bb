"""A fit drawn: the target and the fit, and below them the error with its alternation points."""

from __future__ import annotations

from pathlib import Path

import altair as alt
import numpy as np

from rational_sae.rational import Fit
from rational_sae.rational.grids import clustered_pieces
from rational_sae.report.charts import Layers
from rational_sae.report.pictures import save_picture
from rational_sae.report.rows import ROWS, RSAE, TEACHER

WIDTH, HEIGHT = 640, 240
POINTS = 300
"""Of each smooth piece of the set, clustered at the kinks as the error is."""


def save_fit_chart(fit: Fit, path: Path) -> None:
    """Writes .html (self-contained), .svg, .png or .json, by the name's end. Raises OutputError."""
    save_picture(fit_chart(fit), path)


def fit_chart(fit: Fit) -> alt.VConcatChart:
    """Two panels: the curves over t, and the error over the distance from the kink where there is one kink. That
    axis is a symmetric logarithm, as an error's peaks lie evenly in the logarithm of this distance."""
    kink = fit.target.kinks[0] if len(fit.target.kinks) == 1 else None
    origin = kink or 0.0
    curves, errors = [], []
    for number, t in enumerate(clustered_pieces(fit.target, POINTS)):
        target, found = fit.target(t), fit(t)
        error = fit.target.weight(t) * (found - target)
        for place, f, r, e in zip(t, target, found, error, strict=True):
            curves += [{"t": place, "value": f, "curve": "target", "piece": number}]
            curves += [{"t": place, "value": r, "curve": "fit", "piece": number}]
            errors += [{"t": place - origin, "error": e, "piece": number}]
    at = fit.alternation_points
    peaks = fit.target.weight(at) * (fit(at) - fit.target(at))
    points = [{"t": t - origin, "error": e} for t, e in zip(at, peaks, strict=True)]
    p, q = fit.type
    title = alt.TitleParams(
        f"{fit.target.name}, type ({p},{q})",
        subtitle=f"error {fit.error:.3e}, {fit.alternations} alternations, {fit.status}",
        anchor="start",
    )
    return (
        alt.vconcat(_curves(curves).properties(title=title), _errors(errors, points, fit.error, _axis(fit, kink)))
        .configure_view(stroke=None)
        .configure_axis(gridColor="#e4e4e4", titleFontWeight="normal")
        .properties(background="white", padding=12)
    )


def _curves(rows: list[dict[str, object]]) -> alt.Chart:
    scale = alt.Scale(domain=["target", "fit"], range=[ROWS[TEACHER].stroke.colour, ROWS[RSAE].stroke.colour])
    return (
        alt.Chart(alt.Data(values=rows))
        .mark_line(clip=True)
        .encode(
            x=alt.X("t:Q", title=None),
            y=alt.Y("value:Q", title="value"),
            color=alt.Color("curve:N", scale=scale, title=None, legend=alt.Legend(orient="top-left")),
            strokeDash=alt.StrokeDash("curve:N", scale=alt.Scale(domain=["target", "fit"], range=[[1, 0], [6, 3]])),
            detail="piece:N",
            order="t:Q",
        )
        .properties(width=WIDTH, height=HEIGHT)
    )


def _axis(fit: Fit, kink: float | None) -> alt.X:
    """Of the error: linear in t without a single kink, else logarithmic from the innermost alternation point on."""
    if kink is None:
        return alt.X("t:Q", title="t; dots: alternation points")
    low, high = fit.target.hull
    away = np.abs(fit.alternation_points - kink)
    innermost = float(np.min(away[away > 1e-8 * fit.target.radius], initial=fit.target.radius))
    decades = 10.0 ** np.arange(np.floor(np.log10(innermost)), np.log10(fit.target.radius) + 1)
    ticks = [tick for tick in (*-decades[::-1], 0.0, *decades) if low - kink <= tick <= high - kink]
    scale = alt.Scale(type="symlog", constant=innermost, domain=[low - kink, high - kink], nice=False)
    name = f"t − {kink:g}" if kink else "t"
    axis = alt.Axis(values=ticks, format="~g", labelOverlap="greedy")
    return alt.X("t:Q", title=f"{name}, symmetric logarithm; dots: alternation points", scale=scale, axis=axis)


def _errors(rows: list[dict[str, object]], points: list[dict[str, float]], error: float, x: alt.X) -> Layers:
    scale = alt.Scale(domain=[-1.15 * error, 1.15 * error]) if np.isfinite(error) and error > 0 else alt.Scale()
    y = alt.Y("error:Q", title="error, weighted", scale=scale, axis=alt.Axis(format=".1e"))
    line = alt.Chart(alt.Data(values=rows)).mark_line(color=ROWS[RSAE].stroke.colour, strokeWidth=1, clip=True)
    marks = alt.Chart(alt.Data(values=points)).mark_point(color="#2f86d6", filled=True, size=36, opacity=1)
    levels = alt.Chart(alt.Data(values=[{"error": error}, {"error": -error}])).mark_rule(
        color="#808080", strokeDash=[2, 3]
    )
    return alt.layer(
        levels.encode(y=y),
        line.encode(x=x, y=y, detail="piece:N", order="t:Q"),
        marks.encode(x=x, y=y),
    ).properties(width=WIDTH, height=HEIGHT)
