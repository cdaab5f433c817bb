"""Feature absorption by the first-letter task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rational_sae.report.panels.panel import Content, Panel
from rational_sae.report.table import absorption_rows

TEMPLATE = """\
{% for note in notes %}
<p><strong>Not evidence.</strong> This is {{ note }}.</p>
{% endfor %}
{{ show.results(table, "First-letter task") }}
"""


def content(report: Mapping[str, Any]) -> Content | None:
    lines = absorption_rows(report)
    if not lines:
        return None
    notes = dict.fromkeys(str(row.get("smoke_test") or "") for row in report["absorption"].values())
    return Content({"table": (list(lines[0].cells), lines), "notes": [one for one in notes if one]}, lines=lines)


ABSORPTION = Panel("absorption", "Feature absorption", TEMPLATE, content)
