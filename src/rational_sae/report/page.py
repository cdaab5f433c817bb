"""report.html: one file that loads nothing, readable in light and dark, on a phone and on paper."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from rational_sae.metrics import METRICS, metric, named
from rational_sae.report.decision import RULE, decisions
from rational_sae.report.features import ORDERS, browser_data, filters, summary_facts
from rational_sae.report.numbers import format_value
from rational_sae.report.rows import ROWS, RSAE, in_order, row_label
from rational_sae.report.schema import check_report, to_plain
from rational_sae.report.sweep_table import sweep_sheets
from rational_sae.report.table import Line, absorption_rows, difference_rows, having, probing_rows, table_rows
from rational_sae.support.safe_text import all_printable

if TYPE_CHECKING:
    from rational_sae.report.charts import Group

CHART_HEIGHT = 230
FONT = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
"""As in page.css. Vega measures its labels in it, so the stylesheet must not give them another."""
FACTS = (
    ("teacher", "Teacher"),
    ("fit", "Rational fit"),
)
DETAILS = (
    ("settings", "Settings"),
    ("data", "Data"),
    ("environment", "Environment"),
    ("timing", "Timing"),
)


Table = tuple[list[str], list[Line]]
"""Keys and rows."""


@dataclass(frozen=True)
class TaskTable:
    """The probes of one task."""

    name: str
    note: str
    table: Table


def render(report: Mapping[str, Any]) -> str:
    """The page for a report; OutputError where the report is malformed."""
    plain = all_printable(check_report(report))
    rows, differences = table_rows(plain), difference_rows(plain)
    tasks, absorption, browser = _tasks(plain), absorption_rows(plain), browser_data(plain)
    probed = [row for task in tasks for row in task.table[1]]
    groups = _groups(plain)
    return _page(
        "page.html",
        plain["title"],
        groups.values(),
        report=plain,
        warnings=plain.get("warnings") or [],
        decisions=decisions(plain),
        rule=RULE,
        tables=_tables(rows),
        difference_tables=_tables(differences),
        tasks=tasks,
        protocol=_facts((plain.get("probing") or {}).get("protocol")),
        absorption=(list(absorption[0].cells), absorption) if absorption else None,
        browser=browser,
        feature_facts=summary_facts(plain),
        orders=ORDERS,
        statuses=filters(plain),
        groups=groups,
        facts=[(title, _facts(plain.get(key))) for key, title in FACTS if plain.get(key)],
        details=[(title, _facts(plain.get(key), key)) for key, title in DETAILS if plain.get(key)],
        dead=_dead(plain),
        metrics=_glossary([*rows, *differences, *probed, *absorption], latents=bool(browser)),
        row_meanings=_row_meanings([*rows, *probed, *absorption]),
    )


def render_sweep(found: Mapping[str, Any]) -> str:
    """The page for a sweep's summary (sweep.json)."""
    from rational_sae.report.pareto import pareto_groups

    plain = all_printable(to_plain(found))
    groups = pareto_groups(plain)
    title = f"Sweep of {len(plain['cells'])} upgrades"
    return _page("sweep.html", title, groups, found=plain, sheets=sweep_sheets(plain), groups=groups)


def _page(name: str, title: str, drawn: Iterable[Group], **context: Any) -> str:
    """A template with its style, its scripts and the data that they read."""
    specs = {panel.name: _spec(panel.chart) for group in drawn for panel in group.panels}
    browser = context.get("browser")
    scripts = [_asset("page.js")]
    if specs:
        scripts.insert(0, _bundle())
    if browser:
        scripts.append(_asset("features.js"))
    embedded = {key: value for key, value in (("specs", specs), ("features", browser)) if value}
    return (
        _environment()
        .get_template(name)
        .render(
            title=title,
            css=_asset("page.css"),
            scripts=scripts,
            specs=specs,
            embedded=embedded,
            metric=metric,
            subject=RSAE,
            **context,
        )
    )


def _groups(plain: Mapping[str, Any]) -> dict[str, Group]:
    """The charts that the report has data for."""
    from rational_sae.report import charts
    from rational_sae.report.latent_chart import latent_group
    from rational_sae.report.pareto import pareto_group

    drawn = (
        charts.comparison_group(plain),
        pareto_group(plain),
        charts.gate_group(plain),
        charts.training_group(plain),
        charts.firing_group(plain),
        latent_group(plain),
    )
    return {group.name: group for group in drawn if group}


def _environment() -> Any:
    import jinja2

    found = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(_asset),
    )
    found.filters["hash_source"] = _hash_source
    found.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    return found


def _hash_source(script: str) -> str:
    """A script as the content security policy names it: no other script may run, wherever it came from."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _asset(name: str) -> str:
    return (resources.files("rational_sae.report") / name).read_text(encoding="utf-8")


@cache
def _bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed in one script, of the version that Altair writes for."""
    import vl_convert

    from rational_sae.report.charts import VEGA_LITE

    return vl_convert.javascript_bundle(vl_version=VEGA_LITE)  # pyright: ignore[reportCallIssue] - its stub is wrong


def _spec(chart: Any) -> dict[str, Any]:
    """The chart without a legend, as wide as its box; its text and grid get their colours from page.css."""
    sized = chart.properties(width="container", height=CHART_HEIGHT, background="transparent", padding=2)
    axis = {"titleFontWeight": "normal", "labelFontSize": 11, "titleFontSize": 12, "labelSeparation": 8}
    return sized.configure(font=FONT, legend={"disable": True}, view={"stroke": None}, axis=axis).to_dict()


def _tables(rows: list[Line]) -> dict[str, Table]:
    """Keys and rows of the main table, of the probes, and of what remains; those that have something."""
    present = list(dict.fromkeys(key for row in rows for key in row.cells))
    split = {
        "main": [key for key in named("headline") if key in present],
        "probing": [key for key in named("probing") if key in present],
        "further": [key for key in present if key not in named("headline", "probing")],
    }
    return {which: (keys, found) for which, keys in split.items() if (found := having(rows, keys))}


def _tasks(report: Mapping[str, Any]) -> list[TaskTable]:
    tasks = (report.get("probing") or {}).get("tasks") or {}
    return [
        TaskTable(name, _task_note(tasks[name]), (list(rows[0].cells), rows))
        for name, rows in probing_rows(report).items()
        if rows
    ]


def _task_note(task: Mapping[str, Any]) -> str:
    """ "4 classes, 800 train and 200 test examples", as far as it is known."""
    sizes = [f"{task[part]:,} {part}" for part in ("train", "test") if task.get(part) is not None]
    classes = [f"{len(task['classes'])} classes"] if task.get("classes") else []
    return ", ".join([*classes, " and ".join(sizes) + " examples"] if sizes else classes)


def _facts(section: Mapping[str, Any] | None, key: str = "", prefix: str = "") -> list[tuple[str, str]]:
    """(name, text) of a section's entries; nested entries get dotted names, times their unit."""
    facts = []
    for name, value in (section or {}).items():
        if isinstance(value, Mapping):
            facts += _facts(value, key, f"{prefix}{name}.")
        else:
            unit = " s" if key == "timing" and value is not None else ""
            facts.append((f"{prefix}{name}", format_value("", value) + unit))
    return facts


def _dead(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    dead = (report.get("firing") or {}).get("dead") or {}
    return [(row_label(name), format_value("dead", dead[name])) for name in in_order(dead)]


def _row_meanings(rows: Iterable[Line]) -> list[tuple[str, str]]:
    """(label, meaning) of every known row that the page shows."""
    shown = {row.name for row in rows}
    return [(row_label(name), row.words) for name, row in ROWS.items() if name in shown]


def _glossary(rows: Iterable[Line], *, latents: bool) -> list[tuple[str, str, str]]:
    """(label, key, definition) of every metric that the page shows."""
    shown = {key for row in rows for key in row.cells}
    shown |= set(named("latent")) if latents else set()
    return [(m.label, key, m.words) for key, m in METRICS.items() if key in shown]
