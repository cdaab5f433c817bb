"""What the report's charts share; each panel draws its own, with Altair, from a checked report.

A figure has no legend and no width of its own: the page writes one legend for a group and lets figures follow the
window, pictures set both. Importing this module imports Altair, so others import it when they draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import altair as alt

from rational_sae.report.strokes import Stroke

INK = "#808080"
"""Rules and bars that belong to no row: legible on white and on black."""
VEGA_LITE = ".".join(alt.SCHEMA_VERSION.split(".")[:2])
"""The version of Vega-Lite that the installed Altair writes, as vl-convert names it."""

Layers = alt.LayerChart | alt.FacetChart
"""What Altair's types say of layered charts; none here is faceted."""


@dataclass(frozen=True)
class Figure:
    """One chart and the words around it."""

    name: str
    title: str
    chart: Layers
    notes: tuple[str, ...] = ()
    """Sentences on what is drawn how."""


@dataclass(frozen=True)
class Group:
    """Figures that share a legend: label → stroke."""

    name: str
    figures: list[Figure]
    legend: dict[str, Stroke]
    marks: Literal["lines", "points", "both"] = "lines"
    """What the legend shows of a stroke."""


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


def rule_at(encoding: alt.X | alt.Y, at: float) -> alt.Chart:
    """A dotted line across a chart."""
    rule = alt.Chart(alt.Data(values=[{"at": at}])).mark_rule(color=INK, strokeDash=[1, 3], strokeWidth=1.5)
    return rule.encode(x=encoding) if isinstance(encoding, alt.X) else rule.encode(y=encoding)


def scale_of(values: Sequence[float]) -> alt.Scale:
    """Logarithmic where the values span more than a factor of 20 (by eye), else linear; never forced to zero."""
    wide = min(values) > 0 and max(values) > 20 * min(values)
    return alt.Scale(type="log") if wide else alt.Scale(zero=False)
