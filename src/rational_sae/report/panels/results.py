"""Every row with its metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rational_sae.report.panels.panel import Content, Panel, tables
from rational_sae.report.schema import nouns
from rational_sae.report.table import table_rows

TEMPLATE = """\
{% if "main" in tables %}
{{ show.results(tables.main, "On test " ~ of ~ ", the same for every row; 95 % bootstrap interval over " ~ owners ~ " \
underneath. A click on a heading sorts.") }}
{% endif %}
{% if "further" in tables %}
<details><summary>More metrics</summary>
{{ show.results(tables.further, "The remaining metrics") }}
</details>
{% endif %}
"""


def content(report: Mapping[str, Any]) -> Content | None:
    rows = table_rows(report)
    found = tables(rows)
    of, owners = nouns(report)
    return Content({"tables": found, "of": of, "owners": owners}, lines=rows) if found else None


RESULTS = Panel("results", "Results", TEMPLATE, content)
