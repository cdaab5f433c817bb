"""What a panel of the page is, and what panels share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rational_sae.metrics import named
from rational_sae.report.numbers import format_value
from rational_sae.report.table import Line, having

if TYPE_CHECKING:
    from rational_sae.report.charts import Group

Table = tuple[list[str], list[Line]]
"""Keys and lines."""


@dataclass(frozen=True)
class Content:
    """What a panel shows of one report."""

    values: Mapping[str, Any]
    """What its template names."""
    groups: Sequence[Group] = ()
    """Charts, which the template puts where they belong."""
    lines: Sequence[Line] = ()
    """Lines of its tables, whose rows and metrics the glossary explains."""
    metrics: Sequence[str] = ()
    """Further metrics for the glossary."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """What its scripts read, by the id of the element that holds it as JSON."""
    scripts: Sequence[str] = ()
    """Files beside page.js."""


@dataclass(frozen=True)
class Panel:
    """One section of the page."""

    name: str
    """The heading's id, which links lead to."""
    title: str
    template: str
    """Jinja, of what follows the heading. `show` holds the macros of macros.html."""
    content: Callable[[Mapping[str, Any]], Content | None]
    """From a checked report; None where the report has nothing for the panel."""


def tables(rows: Sequence[Line]) -> dict[str, Table]:
    """Keys and lines of the main table, of the probes, and of what remains; those that have something."""
    present = list(dict.fromkeys(key for row in rows for key in row.cells))
    split = {
        "main": [key for key in named("headline") if key in present],
        "probing": [key for key in named("probing") if key in present],
        "further": [key for key in present if key not in named("headline", "probing", "suite")],
    }
    return {which: (keys, found) for which, keys in split.items() if (found := having(rows, keys))}


def facts(section: Mapping[str, Any] | None, *, unit: str = "", prefix: str = "") -> list[tuple[str, str]]:
    """(name, text) of a section's entries; nested entries get dotted names, known numbers their unit."""
    found = []
    for name, value in (section or {}).items():
        if isinstance(value, Mapping):
            found += facts(value, unit=unit, prefix=f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", format_value("", value) + (unit if value is not None else "")))
    return found
