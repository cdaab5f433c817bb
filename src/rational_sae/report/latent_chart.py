"""How far the listed latents moved, against how often they fire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt

from rational_sae.metrics import metric
from rational_sae.report.charts import Figure, Group, Layers, shape_of
from rational_sae.report.numbers import format_value
from rational_sae.report.statuses import STATUSES

QUANTITIES = ("cos_decoder", "correlation")


def latent_group(report: Mapping[str, Any]) -> Group | None:
    """A point a latent; a latent that never fires has no place on the axis and is left out."""
    features = report.get("features") or {}
    found = [latent for latent in features.get("latents") or [] if _share(latent)]
    statuses = [status for key, status in STATUSES.items() if any(latent["status"] == key for latent in found)]
    styles = {status.words: status.stroke for status in statuses}
    figures = []
    for key in QUANTITIES:
        points = [
            {
                "latent": latent["latent"],
                "status": STATUSES[latent["status"]].words,
                "share": _share(latent),
                "value": latent[key],
                "text": format_value(key, latent[key]),
            }
            for latent in found
            if latent.get(key) is not None
        ]
        if len(points) > 1:
            figures.append(Figure(f"latents-{key}", metric(key).label, _scatter(points, key, styles)))
    return Group("latents", figures, styles, "points") if figures else None


def _share(latent: Mapping[str, Any]) -> float:
    """The largest share of tokens on which any row's latent is active."""
    return max((share for share in (latent.get("density") or {}).values() if share), default=0.0)


def _scatter(points: list[dict[str, Any]], key: str, styles: Mapping[str, Any]) -> Layers:
    dots = (
        alt.Chart(alt.Data(values=points))
        .mark_point(filled=True, size=28, opacity=0.6)
        .encode(
            x=alt.X(
                "share:Q",
                title="share of tokens on which it is active",
                scale=alt.Scale(type="log", nice=False, padding=8),
                axis=alt.Axis(format="~g", tickCount=5),
            ),
            y=alt.Y("value:Q", title=metric(key).label, scale=alt.Scale(zero=False, padding=8)),
            color=alt.Color(
                "status:N",
                scale=alt.Scale(domain=list(styles), range=[stroke.colour for stroke in styles.values()]),
                legend=None,
            ),
            shape=shape_of("status", styles),
            tooltip=[
                alt.Tooltip("latent:Q", title="latent"),
                alt.Tooltip("status:N"),
                alt.Tooltip("text:N", title=metric(key).label),
            ],
        )
    )
    return alt.layer(dots)
