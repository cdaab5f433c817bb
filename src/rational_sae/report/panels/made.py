"""Settings, data, versions and seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rational_sae.report.panels.panel import Content, Panel, facts

SECTIONS = {"settings": "Settings", "data": "Data", "environment": "Environment", "timing": "Timing"}

TEMPLATE = """\
{% for caption, entries in details %}
<details><summary>{{ caption }}</summary>
{{ show.facts_table(caption, entries) }}
</details>
{% endfor %}
"""


def content(report: Mapping[str, Any]) -> Content | None:
    found = [
        (title, facts(report[key], unit=" s" if key == "timing" else ""))
        for key, title in SECTIONS.items()
        if report.get(key)
    ]
    return Content({"details": found}) if found else None


MADE = Panel("how", "How it was made", TEMPLATE, content)
