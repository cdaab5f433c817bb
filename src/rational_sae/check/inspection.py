"""What `rsae inspect` shows: an SAE's formula and facts, and how it does on real activations if a text is given."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rational_sae.check.formula import facts
from rational_sae.check.verify import verify
from rational_sae.data.reading import Reading
from rational_sae.formats import load
from rational_sae.support.progress import Progress, Silent

TOKENS = 2048
"""Of the calibration split, to measure on."""


def inspect_sae(name: str, reading: Reading | None = None, *, progress: Progress | None = None) -> dict[str, Any]:
    """Facts of an SAE. reading: also measure FVU, L0 and the share out of range, under `verified`, and name the likely
    formula where the stored one looks wrong. Raises RationalSAEError with a one-line reason."""
    progress = progress or Silent()
    progress.stage("load SAE")
    sae = load(name)
    reader = None
    if reading is not None:
        progress.stage("read activations")
        reader = reading.open(sae)
    found = facts(sae)
    if reader is not None:
        x = reader.sample("calibration", TOKENS)
        progress.stage("measure")
        verified = asdict(verify(sae, x, accept_implausible=True))
        found["verified"] = {**verified, "warnings": [*verified["warnings"], *reader.warnings()], "tokens": len(x)}
    return found
