"""The feature browser's data: every number already written, so that the page's script formats none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rational_sae.metrics import metric
from rational_sae.report.numbers import format_value
from rational_sae.report.rows import row_label, untrained
from rational_sae.report.statuses import STATUSES

SHOWN = ("change", "cos_decoder", "cos_encoder", "correlation", "overlap")
"""Of each latent, in this order."""
ORDERS = {
    "change-down": "Most changed",
    "change-up": "Least changed",
    "density-down": "Most active",
    "density-up": "Least active",
    "correlation-up": "Least correlated",
    "correlation-down": "Most correlated",
    "latent-up": "Latent number",
}
"""Key and direction → what the list is sorted by; the first is the page's own order."""


def browser_data(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the page embeds as JSON: rows, and for each latent its number, status, facts, sort keys and examples.

    An example is [tokens, values, peak]; values are text, 0 where the latent is silent.
    """
    features = report.get("features")
    if not features or not features["latents"]:
        return None
    rows = features["rows"]
    return {
        "rows": [row_label(row, untrained(report)) for row in rows],
        "latents": [_latent(latent, rows) for latent in features["latents"]],
    }


def summary_facts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, text) of what holds over all latents; one line a row where a fact has one number a row."""
    facts, kept = [], untrained(report)
    for name, value in ((report.get("features") or {}).get("summary") or {}).items():
        words = name.replace("_", " ")
        if isinstance(value, Mapping):
            facts += [(f"{words}, {row_label(row, kept)}", _written(name, item)) for row, item in value.items()]
        else:
            facts.append((words, _written(name, value)))
    return facts


def filters(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(status, words with their count) of the statuses that occur."""
    latents = (report.get("features") or {}).get("latents") or []
    found = [latent["status"] for latent in latents]
    named = [(key, status.words, found.count(key)) for key, status in STATUSES.items()]
    return [(status, f"{words} ({count})") for status, words, count in named if count]


def _latent(latent: Mapping[str, Any], rows: list[str]) -> dict[str, Any]:
    density = latent.get("density") or {}
    return {
        "latent": latent["latent"],
        "status": latent["status"],
        "words": STATUSES[latent["status"]].words,
        "facts": [[metric(key).label, format_value(key, latent[key])] for key in SHOWN if key in latent],
        "density": [format_value("density", density.get(row)) for row in rows],
        "sort": {
            "latent": latent["latent"],
            "change": latent.get("change"),
            "correlation": latent.get("correlation"),
            "density": max((share for row in rows if (share := density.get(row)) is not None), default=None),
        },
        "examples": [[_example(one) for one in latent["examples"].get(row) or []] for row in rows],
    }


def _example(example: Mapping[str, Any]) -> list[Any]:
    values = [format_value("activation", value) if value else 0 for value in example["values"]]
    return [example["tokens"], values, example["peak"]]


def _written(name: str, value: Any) -> str:
    """A summary's number, written like the latents' own where it is a statistic of theirs."""
    key = next((key for key in SHOWN if name.endswith(key)), "")
    return format_value(key, value)
