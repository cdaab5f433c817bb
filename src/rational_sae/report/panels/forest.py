"""The paired differences that the answer rests on, drawn: a line a comparison, as shares of the base, with a zero line.

Of an upgrade each line is what one part gave; of an evaluation each SAE against the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import altair as alt

from rational_sae.report.charts import INK, Figure, Group, Layers
from rational_sae.report.decision import OUTCOMES, Decision, Fact, decisions, least_effect
from rational_sae.report.panels.panel import Content, Panel
from rational_sae.report.schema import nouns
from rational_sae.report.strokes import Stroke

COLOURS = {"better": "#2e9b5b", "worse": "#d0493f", "same": INK, "slight": INK, "unclear": INK}
LONGEST = 34
"""Characters of a line's words, before they are broken."""

TEMPLATE = """\
{{ show.charts(group, legend=false) }}
<p class="aside">Left of the line is better; bars are paired 95 % intervals over {{ owners }}. Green: better, red: \
worse, grey: not clear or too small to matter. The band is the least effect that matters.</p>
"""


def content(report: Mapping[str, Any]) -> Content | None:
    group = forest_group(report)
    return Content({"group": group, "owners": nouns(report)[1]}, (group,)) if group else None


def forest_group(report: Mapping[str, Any]) -> Group | None:
    """One figure for FVU and one for ΔCE, of every comparison that has shares."""
    lines = [line for one in decisions(report) for line in _lines(one, several=len(decisions(report)) > 1)]
    keys = dict.fromkeys(fact.key for _, facts in lines for fact in facts if fact.relative is not None)
    figures = [Figure(f"forest-{key}", _title(lines, key), _forest(lines, key, least_effect(report))) for key in keys]
    return Group("comparison", figures, {"difference": Stroke(INK)}) if figures else None


def _lines(one: Decision, *, several: bool) -> Iterator[tuple[str, list[Fact]]]:
    if one.parts:
        yield from ((part.words, part.facts) for part in one.parts)
    else:
        yield one.row if several else f"{one.row} − {one.base}", one.primary


def _title(lines: list[tuple[str, list[Fact]]], key: str) -> str:
    return next(fact.label for _, facts in lines for fact in facts if fact.key == key)


def _forest(lines: list[tuple[str, list[Fact]]], key: str, least: float) -> Layers:
    points = [
        {
            "line": _broken(words),
            "value": 100 * fact.relative[0],
            "low": 100 * fact.relative[1],
            "high": 100 * fact.relative[2],
            "outcome": fact.outcome,
            "text": f"{fact.share} [{fact.relative[1]:+.1%}, {fact.relative[2]:+.1%}], {OUTCOMES[fact.outcome]}",
        }
        for words, facts in lines
        for fact in facts
        if fact.key == key and fact.relative is not None
    ]
    order = [point["line"] for point in points]
    base = alt.Chart(alt.Data(values=points)).encode(
        y=alt.Y("line:N", sort=order, title=None, axis=alt.Axis(labelLimit=260, labelExpr="split(datum.label, '\\n')")),
        color=alt.Color("outcome:N", scale=alt.Scale(domain=list(COLOURS), range=list(COLOURS.values())), legend=None),
        tooltip=[alt.Tooltip("line:N", title="part"), alt.Tooltip("text:N", title="change")],
    )
    title = "change, %"
    # Zero and the band are always in sight.
    ends = [0.0, -150 * least, 150 * least, *(point[end] for point in points for end in ("low", "high"))]
    scale = alt.Scale(domain=[min(ends), max(ends)], nice=True)
    band = (
        alt.Chart(alt.Data(values=[{"from": -100 * least, "to": 100 * least}]))
        .mark_rect(color=INK, opacity=0.15)
        .encode(x=alt.X("from:Q", title=title, scale=scale), x2="to:Q")
    )
    zero = (
        alt.Chart(alt.Data(values=[{"at": 0}]))
        .mark_rule(color=INK, strokeWidth=1.5)
        .encode(x=alt.X("at:Q", title=title, scale=scale))
    )
    bars = base.mark_rule(strokeWidth=2.5).encode(x=alt.X("low:Q", title=title, scale=scale), x2="high:Q")
    dots = base.mark_point(size=80, filled=True, opacity=1).encode(x=alt.X("value:Q", title=title, scale=scale))
    return alt.layer(band, zero, bars, dots)


def _broken(words: str) -> str:
    """On two lines where it is long, at the space nearest to the middle."""
    if len(words) <= LONGEST or " " not in words:
        return words
    middle = len(words) // 2
    at = min((i for i, letter in enumerate(words) if letter == " "), key=lambda i: abs(i - middle))
    return f"{words[:at]}\n{words[at + 1 :]}"


FOREST = Panel("forest", "Paired differences", TEMPLATE, content)
