"""Demo SAEs that come with the package, one of each family: of SmolLM2-135M-Instruct's block 11 (train_teachers.py)."""

from __future__ import annotations

from pathlib import Path

from rational_sae.errors import SourceError

FAMILIES = ("relu", "jumprelu", "topk")
PREFIX = "demo:"
PACKAGE = Path(__file__).parents[1]
PLACES = (PACKAGE / "teachers", PACKAGE.parents[1] / "demo" / "teachers")
"""Where they lie: in an installed package, in a checkout."""


def shipped(name: str) -> Path:
    """The folder of `demo:FAMILY`. Raises SourceError if there is no such family, or this installation has none."""
    family = name.removeprefix(PREFIX)
    if family not in FAMILIES:
        raise SourceError(f"there is no {PREFIX}{family[:40]}", f"choose {', '.join(PREFIX + one for one in FAMILIES)}")
    for place in PLACES:
        if (place / family).is_dir():
            return place / family
    raise SourceError(f"{name} is not installed with the package", "install rational-sae again, from its wheel")
