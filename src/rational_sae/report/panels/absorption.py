"""Feature absorption by the first-letter task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rational_sae.report.panels.panel import Content, Panel
from rational_sae.report.table import absorption_rows

TEMPLATE = """\
{{ show.results(table, "First-letter task") }}
"""


def content(report: Mapping[str, Any]) -> Content | None:
    lines = absorption_rows(report)
    return Content({"table": (list(lines[0].cells), lines)}, lines=lines) if lines else None


ABSORPTION = Panel("absorption", "Feature absorption", TEMPLATE, content)
