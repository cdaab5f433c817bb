"""The tasks of sae-probes: means, paired differences over tasks with wins and losses, and each task drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import altair as alt

from rational_sae.metrics import metric, named
from rational_sae.report.charts import INK, Figure, Group, Layers
from rational_sae.report.numbers import format_difference, format_interval, format_value
from rational_sae.report.panels.panel import Content, Panel, Table, facts
from rational_sae.report.rows import row_label, untrained
from rational_sae.report.strokes import Stroke
from rational_sae.report.table import Line, suite_rows

TEST, ELSEWHERE = "test", "elsewhere"
COUNTED = {TEST: "texts of the tasks themselves", ELSEWHERE: "the same labels on texts of another source"}

ABOVE = (-0.9, -0.3, -0.6, 0.0, -0.75, -0.15, -0.45)
"""Where in its band a task's dot is drawn, so that equal differences are told apart; the mean is drawn under them."""

TEMPLATE = """\
<p>Area under the ROC curve of probes on the codes at a text's last token. 50 % is chance; higher is better.</p>
{{ show.charts(group, legend=false) if group else "" }}
{% for part in parts %}
{{ show.results(part.table, "Mean over " ~ part.where ~ "; 95 % intervals over tasks") }}
{% if part.differences %}
<div class="scroll" tabindex="0" role="region" aria-label="Paired differences over tasks">
<table>
<caption><span>Paired differences over {{ part.where }}: the mean, its 95 % interval, and in how many tasks \
the first is better and worse</span></caption>
<thead><tr><th scope="col">Difference</th>{% for key in part.keys %}<th scope="col" title="{{ metric(key).words }}">\
{{ metric(key).label }}</th>{% endfor %}</tr></thead>
<tbody>
{% for label, cells in part.differences %}
<tr><th scope="row">{{ label }}</th>
{% for cell in cells %}
<td class="{{ cell.outcome }}">{{ cell.text }}<small>{{ cell.interval }}</small><small>{{ cell.counts }}</small></td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endif %}
{% endfor %}
<details><summary>Every task</summary>
{% for key, table in tasks %}
<div class="scroll" tabindex="0" role="region" aria-label="{{ metric(key).label }} of every task">
<table class="sortable">
<caption><span>{{ metric(key).label }} of every task</span></caption>
<thead><tr>{{ show.sort_head("Task") }}
{% for label in table.labels %}
{{ show.sort_head(label) }}
{% endfor %}
</tr></thead>
<tbody>
{% for name, values in table.lines %}
<tr><th scope="row">{{ name }}</th>{% for text in values %}<td data-value="{{ text }}">{{ text }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endfor %}
{% for name, why in left_out %}
<p class="aside">{{ name }} was left out: {{ why }}.</p>
{% endfor %}
</details>
{% if protocol %}
<details><summary>Protocol of the tasks</summary>
{{ show.facts_table("How these probes were trained", protocol) }}
</details>
{% endif %}
"""


@dataclass(frozen=True)
class Cell:
    """A mean difference over tasks."""

    text: str = ""
    interval: str = ""
    counts: str = ""
    outcome: str = ""


@dataclass(frozen=True)
class Part:
    """What one kind of test texts gave."""

    where: str
    """How many tasks, and on what they were tested."""
    table: Table
    keys: list[str]
    differences: list[tuple[str, list[Cell]]]
    """A cell for each of the keys."""


@dataclass(frozen=True)
class TaskTable:
    """One figure of every task."""

    labels: list[str]
    lines: list[tuple[str, list[str]]]


def content(report: Mapping[str, Any]) -> Content | None:
    suite = report.get("suite")
    if not suite:
        return None
    kept = untrained(report)
    parts = [_part(report, which, words) for which, words in COUNTED.items() if suite.get(which)]
    group = _group(report)
    values = {
        "group": group,
        "parts": parts,
        "tasks": [(key, table) for key in named("suite") if (table := _tasks(suite["tasks"], key, kept)).labels],
        "left_out": list((suite.get("left_out") or {}).items()),
        "protocol": facts(suite.get("protocol")),
    }
    lines: list[Line] = [line for part in parts for line in part.table[1]]
    return Content(values, (group,) if group else (), lines=lines)


def _part(report: Mapping[str, Any], which: str, words: str) -> Part:
    found = report["suite"][which]
    lines = suite_rows(report, which)
    keys = [key for key in lines[0].cells if any(key in one for one in found["differences"].values())]
    differences = [
        (row_label(name, untrained(report)), [_cell(key, one.get(key)) for key in keys])
        for name, one in found["differences"].items()
        if one
    ]
    return Part(f"{found['tasks']} tasks, tested on {words}", (list(lines[0].cells), lines), keys, differences)


def _cell(key: str, found: Mapping[str, Any] | None) -> Cell:
    if found is None:
        return Cell()
    interval = found.get("interval")
    outcome = ""
    if interval is not None:
        outcome = "better" if interval[0] > 0 else "worse" if interval[1] < 0 else "unclear"
    return Cell(
        format_difference(key, found["value"]),
        format_interval(key, interval, signed=True),
        f"{found['wins']} better, {found['losses']} worse",
        outcome,
    )


def _tasks(tasks: Mapping[str, Any], key: str, kept: Iterable[str]) -> TaskTable:
    first = next(iter(tasks.values()))[TEST]
    rows = [row for row, keys in first.items() if key in keys]
    lines = [(name, [format_value(key, task[TEST][row][key]["auc"]) for row in rows]) for name, task in tasks.items()]
    return TaskTable([row_label(row, frozenset(kept)) for row in rows], lines)


def _group(report: Mapping[str, Any]) -> Group | None:
    """A figure for each comparison: a dot a task."""
    suite = report["suite"]
    figures = [
        Figure(f"suite-{number}", row_label(name, untrained(report)), _dots(suite, name))
        for number, name in enumerate(suite[TEST]["differences"])
        if len(suite["tasks"]) > 1 and suite[TEST]["differences"][name]
    ]
    return Group("suite", figures, {"difference": Stroke(INK)}) if figures else None


def _dots(suite: Mapping[str, Any], name: str) -> Layers:
    row, _, base = name.rpartition(" - ")
    found = suite[TEST]["differences"][name]
    points = [
        {
            "figure": metric(key).label,
            "task": task,
            "difference": 100 * (one[row][key]["auc"] - one[base][key]["auc"]),
            "apart": ABOVE[number % len(ABOVE)],
        }
        for number, (task, each) in enumerate(suite["tasks"].items())
        for one in [each[TEST]]
        for key in found
    ]
    means = [
        {
            "figure": metric(key).label,
            "difference": 100 * one["value"],
            "low": 100 * one["interval"][0],
            "high": 100 * one["interval"][1],
            "apart": 0.6,
        }
        for key, one in found.items()
        if one.get("interval")
    ]
    order = [metric(key).label for key in found]
    y = alt.Y("figure:N", sort=order, title=None)
    x = alt.X("difference:Q", title="difference of the AUC, points; right of the line is better")
    apart = alt.YOffset("apart:Q", scale=alt.Scale(domain=[-1, 1]))
    tooltip = [
        alt.Tooltip("task:N", title="task"),
        alt.Tooltip("difference:Q", title="points", format="+.1f"),
    ]
    dots = alt.Chart(alt.Data(values=points)).mark_point(size=28, filled=True, opacity=0.35, color="#2f86d6")
    bars = alt.Chart(alt.Data(values=means)).mark_rule(strokeWidth=4, color="#e0561b")
    middle = alt.Chart(alt.Data(values=means)).mark_point(size=70, filled=True, opacity=1, color="#e0561b")
    zero = alt.Chart(alt.Data(values=[{"at": 0}])).mark_rule(color=INK, strokeWidth=1.5)
    return alt.layer(
        zero.encode(x=alt.X("at:Q")),
        dots.encode(x=x, y=y, yOffset=apart, tooltip=tooltip),
        bars.encode(x=alt.X("low:Q"), x2="high:Q", y=y, yOffset=apart),
        middle.encode(x=alt.X("difference:Q"), y=y, yOffset=apart),
    )


SUITE = Panel("suite", "The tasks of sae-probes", TEMPLATE, content)
