"""FVU and ΔCE against L0, a point a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rational_sae.report.panels.panel import Content, Panel
from rational_sae.report.pareto import pareto_group

TEMPLATE = """\
<p class="aside">Further left and lower is better. Upright bars are 95 % intervals.</p>
{{ show.charts(group, legend=false) }}
"""


def content(report: Mapping[str, Any]) -> Content | None:
    group = pareto_group(report)
    return Content({"group": group}, (group,)) if group else None


SPARSITY = Panel("sparsity", "Against sparsity", TEMPLATE, content)
