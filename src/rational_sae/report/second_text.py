"""What a second text says, in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rational_sae.metrics import metric
from rational_sae.report.numbers import format_difference, format_interval, format_value
from rational_sae.report.rows import RSAE, UNTRAINED, row_label, untrained

SHOWN = ("fvu", "delta_ce")
"""At equal L0 where there is one."""


def as_report(report: Mapping[str, Any]) -> dict[str, Any]:
    """The figures on the second text in the place of those on the first."""
    also = report["also"]
    return {key: also[key] for key in ("rows", "intervals", "differences", "data")} | {
        UNTRAINED: sorted(untrained(report))
    }


def second_text_line(report: Mapping[str, Any]) -> str:
    """The rational SAE (else the second one) against the first row there and here; "" without a second text."""
    also = report.get("also")
    if not also:
        return ""
    base = next(iter(report["rows"]))
    row = next((one for one in (RSAE, *report["rows"]) if one in also["rows"] and one != base), None)
    head = f"On {also['text']} ({also['data']['test_documents']} documents)"
    if row is None:
        key = SHOWN[0]
        return f"{head}: {metric(key).label} {format_value(key, also['rows'][base].get(key))}"
    told = [words for key in SHOWN if (words := _compared(report, row, base, key))]
    return f"{head}, {row_label(row)} against {row_label(base)}: {'; '.join(told)}"


def _compared(report: Mapping[str, Any], row: str, base: str, plain: str) -> str:
    """One metric: from which to which value, the difference there, and the one on the first text."""
    also, name = report["also"], f"{row} - {base}"
    differences = also["differences"].get(name) or {}
    key = next((one for one in (f"{plain}_at_l0", plain) if one in differences), None)
    if key is None:
        return ""
    there, here = differences[key], ((report.get("differences") or {}).get(name) or {}).get(key)
    values = " → ".join(format_value(key, also["rows"][one].get(key)) for one in (base, row))
    first = f"; on the first text {format_difference(key, here['value'])}" if here else ""
    interval = format_interval(key, there.get("interval"), signed=True)
    return f"{metric(key).label} {values} ({format_difference(key, there['value'])} {interval}{first})"
