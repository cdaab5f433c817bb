"""What was fitted, and to which SAE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rational_sae.report.panels.panel import Content, Panel, facts

SECTIONS = {"teacher": "Teacher", "fit": "Rational fit"}

TEMPLATE = """\
{% for caption, entries in facts %}
{{ show.facts_table(caption, entries) }}
{% endfor %}
"""


def content(report: Mapping[str, Any]) -> Content | None:
    found = [(title, facts(report[key])) for key, title in SECTIONS.items() if report.get(key)]
    return Content({"facts": found}) if found else None


FITTED = Panel("fitted", "What was fitted", TEMPLATE, content)
