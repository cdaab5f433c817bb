"""report.html: one file that loads nothing, readable in light and dark, on a phone and on paper."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from .numbers import format_value
from .schema import check_report, to_plain
from .sweep_table import sweep_sheets
from .table import Row, difference_rows, table_rows
from .vocabulary import HEADLINE, METRICS, ROWS, in_order, metric, row_label

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


def render(report: Mapping[str, Any]) -> str:
    """The page for a report; OutputError where the report is malformed."""
    from . import charts

    plain = check_report(report)
    rows, differences = table_rows(plain), difference_rows(plain)
    groups = filter(
        None,
        (
            charts.comparison_group(plain),
            charts.gate_group(plain),
            charts.training_group(plain),
            charts.firing_group(plain),
        ),
    )
    drawn = {group.name: group for group in groups}
    return _template("page.html").render(
        report=plain,
        warnings=plain.get("warnings") or [],
        css=_asset("page.css"),
        script=_asset("page.js"),
        bundle=_bundle() if drawn else "",
        tables=_tables(rows),
        difference_tables=_tables(differences),
        groups=drawn,
        specs={panel.name: _spec(panel.chart) for group in drawn.values() for panel in group.panels},
        facts=[(title, _facts(plain.get(key))) for key, title in FACTS if plain.get(key)],
        details=[(title, _facts(plain.get(key), key)) for key, title in DETAILS if plain.get(key)],
        dead=_dead(plain),
        metrics=_glossary(rows, differences),
        row_meanings=[(row.label, ROWS[row.name]) for row in rows if row.name in ROWS],
        metric=metric,
    )


def render_sweep(found: Mapping[str, Any]) -> str:
    """The page for a sweep's summary (sweep.json)."""
    from .pareto import pareto_groups

    plain = to_plain(found)
    groups = pareto_groups(plain)
    return _template("sweep.html").render(
        found=plain,
        sheets=sweep_sheets(plain),
        groups=groups,
        specs={panel.name: _spec(panel.chart) for group in groups for panel in group.panels},
        css=_asset("page.css"),
        script=_asset("page.js"),
        bundle=_bundle() if groups else "",
    )


def _template(name: str) -> Any:
    import jinja2

    return jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(_asset),
    ).get_template(name)


def _asset(name: str) -> str:
    return (resources.files("rational_sae.report") / name).read_text(encoding="utf-8")


@cache
def _bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed in one script, of the version that Altair writes for."""
    import vl_convert

    from .charts import VEGA_LITE

    return vl_convert.javascript_bundle(vl_version=VEGA_LITE)  # pyright: ignore[reportCallIssue] - its stub is wrong


def _spec(chart: Any) -> dict[str, Any]:
    """The chart without a legend, as wide as its box; its text and grid get their colours from page.css."""
    sized = chart.properties(width="container", height=CHART_HEIGHT, background="transparent", padding=2)
    axis = {"titleFontWeight": "normal", "labelFontSize": 11, "titleFontSize": 12, "labelSeparation": 8}
    return sized.configure(font=FONT, legend={"disable": True}, view={"stroke": None}, axis=axis).to_dict()


def _tables(rows: list[Row]) -> list[tuple[str, list[str], list[Row]]]:
    """(which, keys, rows) of the main table and of the one with the remaining keys."""
    present = list(rows[0].cells) if rows else []
    main = [key for key in HEADLINE if key in present]
    split = [("main", main), ("further", [key for key in present if key not in HEADLINE])]
    return [(which, keys, rows) for which, keys in split if keys]


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
    return [(row_label(name), format_value("dead", dead[name])) for name in in_order(dead, ROWS)]


def _glossary(*tables: list[Row]) -> list[tuple[str, str, str]]:
    """(label, key, definition) of every metric that the page shows."""
    shown = {key for rows in tables for row in rows for key in row.cells}
    return [(m.label, key, m.definition) for key, m in METRICS.items() if key in shown]
