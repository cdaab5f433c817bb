"""What `rsae evaluate` found, as a report: the same dictionary goes to the terminal, the JSON and the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rational_sae.report.decision import verdict_of
from rational_sae.report.environment import environment
from rational_sae.report.schema import SCHEMA


def evaluation_report(found: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """found: `rows` keyed by SAE, `intervals`, `differences` from the first row, and any further section.

    settings: what was asked for.
    """
    count = len(found["rows"])
    report = {
        "schema": SCHEMA,
        "title": f"{count} SAEs side by side" if count > 1 else "One SAE, measured",
        "verdict": "",
        **found,
        "settings": dict(settings),
        "environment": environment(),
    }
    return report | {"verdict": verdict_of(report)}
