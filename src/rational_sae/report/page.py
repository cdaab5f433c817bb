"""report.html: one file that loads nothing, readable in light and dark, on a phone and on paper.

The page is a header with the answer, the panels that have something to show (see `panels`), and a glossary of what
they show.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from rational_sae.metrics import METRICS, metric
from rational_sae.report.decision import OUTCOMES, decisions
from rational_sae.report.rows import ROWS, RSAE, row_label, untrained
from rational_sae.report.schema import check_report, to_plain
from rational_sae.report.sweep_table import SHOWN, same_controls, sweep_answer, sweep_heat, sweep_rows, sweep_sheets
from rational_sae.support.safe_text import all_printable

if TYPE_CHECKING:
    from rational_sae.report.charts import Group
    from rational_sae.report.panels import Content, Panel

CHART_HEIGHT = 230
FONT = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
"""As in page.css. Vega measures its labels in it, so the stylesheet must not give them another."""
SECTION = """\
<section aria-labelledby="{{ panel.name }}">
<h2 id="{{ panel.name }}">{{ panel.title }}</h2>
%s</section>"""
"""Around a panel's template."""


def render(report: Mapping[str, Any]) -> str:
    """The page for a report; OutputError where the report is malformed.

    Path("report.html").write_text(render(read_report(Path("runs/demo"))), encoding="utf-8")
    """
    from rational_sae.report.panels import PANELS

    plain = all_printable(check_report(report))
    shown = {panel.name: content for panel in PANELS if (content := panel.content(plain))}
    environment = _environment()
    return _page(
        environment,
        "page.html",
        plain["title"],
        [group for content in shown.values() for group in content.groups],
        data={key: value for content in shown.values() for key, value in content.data.items()},
        scripts=[script for content in shown.values() for script in content.scripts],
        verdict=plain["verdict"],
        warnings=plain.get("warnings") or [],
        decisions=decisions(plain),
        sections=[_section(environment, panel, shown.get(panel.name)) for panel in PANELS],
        metrics=_metrics(shown.values()),
        rows=_rows(shown.values(), untrained(plain)),
    )


def render_sweep(found: Mapping[str, Any]) -> str:
    """The page for a sweep's summary (sweep.json)."""
    from rational_sae.report.pareto import pareto_groups

    plain = all_printable(to_plain(found))
    groups = pareto_groups(plain)
    title = f"Sweep of {len(plain['cells'])} upgrades"
    return _page(
        _environment(),
        "sweep.html",
        title,
        groups,
        found=plain,
        answer=sweep_answer(plain),
        heat=sweep_heat(plain),
        same_controls=same_controls(plain),
        sheets=sweep_sheets(plain),
        groups=groups,
        rows=[(row_label(name), ROWS[name].words) for name in sweep_rows(plain) if name in ROWS],
        metrics=[(metric(key).label, key, metric(key).words) for key in SHOWN] if plain["cells"] else [],
    )


def _page(
    environment: Any,
    template: str,
    title: str,
    drawn: Iterable[Group],
    *,
    data: Mapping[str, Any] | None = None,
    scripts: Sequence[str] = (),
    **context: Any,
) -> str:
    """A template with its style, its scripts and the data that they read."""
    specs = {figure.name: _spec(figure.chart) for group in drawn for figure in group.figures}
    run = [*([_bundle()] if specs else []), *map(_asset, ("page.js", *scripts))]
    embedded = ({"specs": specs} if specs else {}) | dict(data or {})
    return environment.get_template(template).render(
        title=title, css=_asset("page.css"), scripts=run, specs=specs, embedded=embedded, **context
    )


def _section(environment: Any, panel: Panel, content: Content | None) -> Any:
    """A panel as safe HTML, "" where there is nothing to show."""
    if content is None:
        return ""
    from markupsafe import Markup

    return Markup(environment.from_string(SECTION % panel.template).render(panel=panel, **content.values))


def _environment() -> Any:
    import jinja2

    found = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(_asset),
    )
    found.globals |= {"metric": metric, "subject": RSAE, "outcomes": OUTCOMES}
    found.globals["show"] = found.get_template("macros.html").module
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


def _rows(shown: Iterable[Content], kept: Collection[str]) -> list[tuple[str, str]]:
    """(label, meaning) of every known row that the page shows."""
    names = {line.name for content in shown for line in content.lines}
    return [(row_label(name, kept), row.words) for name, row in ROWS.items() if name in names]


def _metrics(shown: Iterable[Content]) -> list[tuple[str, str, str]]:
    """(label, key, meaning) of every known metric that the page shows."""
    keys = {key for content in shown for line in content.lines for key in line.cells}
    keys |= {key for content in shown for key in content.metrics}
    return [(one.label, key, one.words) for key, one in METRICS.items() if key in keys]
