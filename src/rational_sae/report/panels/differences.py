"""What each comparison gave, metric by metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rational_sae.report.panels.panel import Content, Panel, tables
from rational_sae.report.schema import nouns
from rational_sae.report.table import difference_rows

TEMPLATE = """\
{% if "main" in tables %}
{{ show.differences(tables.main, "Paired bootstrap over " ~ owners ~ ", 95 % intervals") }}
<p class="aside"><em>better</em>, <em>worse</em> and <em>differs</em>: the interval excludes 0 (<em>differs</em> \
where neither direction is an improvement). <em>unclear</em>: it does not.</p>
{% endif %}
{% if "further" in tables %}
<details><summary>More differences</summary>
{{ show.differences(tables.further, "The remaining metrics") }}
</details>
{% endif %}
"""


def content(report: Mapping[str, Any]) -> Content | None:
    lines = difference_rows(report)
    found = tables(lines)
    values = {"tables": found, "owners": nouns(report)[1]}
    return Content(values, lines=lines) if found.keys() & {"main", "further"} else None


DIFFERENCES = Panel("differences", "Differences", TEMPLATE, content)
