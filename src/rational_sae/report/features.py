"""The feature browser's data: every number already written, so that the page's script formats none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rational_sae.metrics import metric
from rational_sae.report.numbers import format_value
from rational_sae.report.rows import row_label, untrained
from rational_sae.report.statuses import STATUSES

SHOWN = ("change", "cos_decoder", "cos_encoder", "correlation", "overlap", "tokens_kept")
"""Of each latent, in this order."""
ORDERS = {
    "change-down": "Most changed",
    "change-up": "Least changed",
    "density-down": "Most active",
    "density-up": "Least active",
    "correlation-up": "Least correlated",
    "correlation-down": "Most correlated",
    "tokens_kept-up": "Fewest tokens kept",
    "latent-up": "Latent number",
}
"""Key and direction → what the list is sorted by; the first is the page's own order."""


def browser_data(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the page embeds as JSON: rows, the text of examples, and for each latent its number, status, facts, sort
    keys, histogram, logits and examples.

    An example is written as in report.json: places and values in one text, which the page takes apart when it is shown.
    """
    features = report.get("features")
    if not features or not features["latents"]:
        return None
    rows, latents = features["rows"], features["latents"]
    text = _Text(features.get("text"))
    facts = [key for key in SHOWN if any(key in latent for latent in latents)]
    tokens = (features.get("summary") or {}).get("tokens")
    return {
        "rows": [row_label(row, untrained(report)) for row in rows],
        "facts": [metric(key).label for key in facts],
        "statuses": {key: status.words for key, status in STATUSES.items()},
        "page": features.get("public_page"),
        "latents": [_latent(latent, rows, facts, tokens, text) for latent in latents],
        "text": text.table,
    }


class _Text:
    """Tokens and sequences that examples are of; examples of an earlier version bring theirs along."""

    def __init__(self, table: Mapping[str, Any] | None) -> None:
        self.table = {name: list(one) for name, one in (table or {"tokens": [], "sequences": []}).items()}
        self._places: dict[str, int] = {}

    def written(self, example: Mapping[str, Any] | str) -> str:
        """An example in one text."""
        if isinstance(example, str):
            return example
        size, sequences = len(example["tokens"]), self.table["sequences"]
        sequences.append(" ".join(str(self._place(token)) for token in example["tokens"]))
        active = (f"{i}:{value:.4g}" for i, value in enumerate(example["values"]) if value)
        return " ".join(map(str, (len(sequences) - 1, 0, size, example["peak"], *active)))

    def _place(self, token: str) -> int:
        if token not in self._places:
            self._places[token] = len(self.table["tokens"])
            self.table["tokens"].append(token)
        return self._places[token]


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


def _latent(
    latent: Mapping[str, Any], rows: list[str], facts: list[str], tokens: int | None, text: _Text
) -> dict[str, Any]:
    density, logits = latent.get("density") or {}, latent.get("logits") or {}
    return {
        "latent": latent["latent"],
        "status": latent["status"],
        "facts": [format_value(key, latent.get(key)) for key in facts],
        "active": [_active(latent, row, tokens) for row in rows],
        "largest": [format_value("activation", (latent.get("largest") or {}).get(row)) for row in rows],
        "histogram": [(latent.get("histogram") or {}).get(row, "") for row in rows],
        "logits": [[logits[row][end] for end in ("promoted", "suppressed")] if row in logits else [] for row in rows],
        "sort": {
            "change": latent.get("change"),
            "correlation": latent.get("correlation"),
            "tokens_kept": latent.get("tokens_kept"),
            "density": max((share for row in rows if (share := density.get(row)) is not None), default=None),
        },
        "examples": [[text.written(one) for one in latent["examples"].get(row) or []] for row in rows],
        "weaker": [(latent.get("weaker") or {}).get(row) or [] for row in rows],
    }


def _active(latent: Mapping[str, Any], row: str, tokens: int | None) -> str:
    """On how many tokens it is active, in numbers that one can picture."""
    fired = (latent.get("fired") or {}).get(row)
    if fired is None or not tokens:
        return f"{format_value('density', (latent.get('density') or {}).get(row))} of tokens"
    return active_on(fired, tokens)


def active_on(fired: int, tokens: int) -> str:
    """On how many tokens of all, in words.

    >>> active_on(9, 6142)
    '9 of 6\u2009142 tokens'
    """
    return f"{_spaced(fired)} of {_spaced(tokens)} tokens"


def _spaced(number: int) -> str:
    """With a thin space between thousands."""
    return f"{number:,}".replace(",", "\u2009")


def _written(name: str, value: Any) -> str:
    """A summary's number, written like the latents' own where it is a statistic of theirs."""
    key = next((key for key in SHOWN if name.endswith(key)), "")
    return format_value(key, value)
