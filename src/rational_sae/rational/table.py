"""The coefficient table that ships with the package: the gates of the paper and of the demo, fitted once.

`table.json` is written by benchmarks/fits.py. An entry is used only if its form and version are known and its error,
measured again when it is read, is what it says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Any

from rational_sae.errors import FitError
from rational_sae.rational.result import Fit
from rational_sae.rational.targets import Target, target

VERSION = 1
"""Of the table's layout."""

ENTRIES: tuple[tuple[Target, tuple[int, int]], ...] = (
    *((target("relu"), degrees) for degrees in ((3, 2), (5, 4), (7, 6), (9, 8))),
    *((target("leaky_relu"), degrees) for degrees in ((3, 2), (9, 8))),
    *((target("jumprelu", 0.1, gap), degrees) for gap in (0.01, 0.02, 0.05) for degrees in ((3, 2), (9, 8))),
)
"""What the table holds."""


def dump(fits: Iterable[Fit]) -> str:
    """The text of `table.json`."""
    return json.dumps({"version": VERSION, "fits": [fit.to_json() for fit in fits]}, indent=1) + "\n"


def parse(text: str) -> list[Fit]:
    """The fits in such a text. Raises FitError on another version, form, or a damaged entry."""
    data: Any = json.loads(text)
    if not isinstance(data, dict) or data.get("version") != VERSION:
        found = data.get("version") if isinstance(data, dict) else None
        raise FitError(
            f"the coefficient table is version {found!r}, not {VERSION}", "run python benchmarks/fits.py --table"
        )
    return [Fit.from_json(entry) for entry in data["fits"]]


@cache
def shipped() -> dict[tuple[Target, tuple[int, int]], Fit]:
    """The table of this installation."""
    fits = parse(files("rational_sae.rational").joinpath("table.json").read_text(encoding="utf-8"))
    return {(fit.target, fit.type): fit for fit in fits if isinstance(fit.target, Target)}
