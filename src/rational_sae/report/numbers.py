"""How a number is written: once, for the page, the terminal and the figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rational_sae.metrics import METRICS

ABSENT = "–"


def format_value(key: str, value: Any) -> str:
    """The value of a metric, a setting or a fact, as text.

    >>> format_value("fvu", 0.12123), format_value("l0", 32), format_value("mse", 1234.56)
    ('0.1212', '32.00', '1235')
    >>> format_value("learning_rate", 1e-4), format_value("kl", 3.2e-6), format_value("kl", None)
    ('0.0001', '3.2e-06', '–')
    """
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(format_value(key, item) for item in value)
    if not isinstance(value, (int, float)):
        return str(value)
    if not math.isfinite(value):
        return ABSENT
    known = METRICS.get(key)
    if known is None:
        return str(value) if isinstance(value, int) else f"{value:.6g}"
    decimals = known.decimals
    return _significant(value) if decimals is None else _fixed(value, decimals)


def format_difference(key: str, value: float | None) -> str:
    """The same with its sign written out.

    >>> format_difference("fvu", 0.0012), format_difference("fvu", -0.0012), format_difference("fvu", 0)
    ('+0.0012', '-0.0012', '0.0000')
    """
    text = format_value(key, value)
    return f"+{text}" if value is not None and value > 0 else text


def format_interval(key: str, interval: Sequence[float | None] | None, *, signed: bool = False) -> str:
    """An interval in brackets, or nothing where there is none.

    >>> format_interval("fvu", [0.1201, 0.1223])
    '[0.1201, 0.1223]'
    """
    if interval is None or None in interval:
        return ""
    write = format_difference if signed else format_value
    low, high = interval
    return f"[{write(key, low)}, {write(key, high)}]"


def format_share(share: float) -> str:
    """A relative difference.

    >>> format_share(-0.1967), format_share(0.00012)
    ('-19.7%', '+0.0%')
    """
    return f"{share:+.1%}"


def relative_difference(report: Mapping[str, Any], name: str, key: str) -> list[float]:
    """A difference "row - base" and the ends of its interval, as shares of the base: [value, low, high]."""
    found, base = report["differences"][name][key], report["rows"][name.rpartition(" - ")[2]][key]
    return [float(number) / base for number in (found["value"], *found["interval"])]


def _fixed(value: float, decimals: int) -> str:
    """Fixed digits, unless that would show a non-zero value as zero or run on for ever."""
    text = f"{value + 0.0:.{decimals}f}"  # + 0.0: no minus before a zero
    if (value and not float(text)) or abs(value) >= 1e7:
        return f"{value:.1e}" if abs(value) < 1 else f"{value:.4g}"
    return text


def _significant(value: float, digits: int = 4) -> str:
    """That many significant digits, plain between 1e-4 and 1e7."""
    if not value:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if not -4 <= exponent < 7:
        return f"{value:.{digits - 1}e}"
    return f"{value:.{max(0, digits - 1 - exponent)}f}"
