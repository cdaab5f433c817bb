"""The same rows on a second text: what a fine-tune forgot, or did not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rational_sae.report.panels.panel import Content, Panel, tables
from rational_sae.report.second_text import as_report, second_text_line
from rational_sae.report.table import difference_rows, table_rows

TEMPLATE = """\
<p>{{ line }}</p>
<p class="aside">The test split of {{ text }}: {{ data.test_tokens }} tokens of {{ data.test_documents }} documents. \
Nothing was trained on this text; L0 is held at the first row's on it.</p>
{% if "main" in rows %}
{{ show.results(rows.main, "On the second text; 95 % bootstrap interval over documents underneath") }}
{% endif %}
{% if "main" in differences %}
{{ show.differences(differences.main, "Paired bootstrap over documents of the second text, 95 % intervals") }}
{% endif %}
{% for warning in warnings %}
<p class="aside">{{ warning }}</p>
{% endfor %}
"""


def content(report: Mapping[str, Any]) -> Content | None:
    also = report.get("also")
    if not also:
        return None
    there = as_report(report)
    lines, differences = table_rows(there), difference_rows(there)
    values = {
        "line": second_text_line(report),
        "text": also["text"],
        "data": also["data"],
        "warnings": also["warnings"],
        "rows": tables(lines),
        "differences": tables(differences),
    }
    return Content(values, lines=[*lines, *differences])


ALSO = Panel("also", "On a second text", TEMPLATE, content)
