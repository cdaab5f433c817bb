"""How far a row has come towards the floor of a dictionary; `evaluation.results` puts it beside a row's figures."""

from __future__ import annotations

from rational_sae.metrics.metric import Metric

OF = (
    "(teacher's FVU − the row's FVU at L0) / (teacher's FVU − the floor's FVU), "
    "the floor being codes by gradient pursuit"
)

WAY, WAY_OWN = "way", "way_own"

FLOOR = (
    Metric(
        WAY,
        "Way to the floor",
        f"{OF} on the teacher's dictionary, at most as many a token as the teacher has. 1 is the floor; a row with a "
        "better dictionary may lie below it. Higher is better.",
        better="higher",
        table="floor",
    ),
    Metric(
        WAY_OWN,
        "Way to its own floor",
        f"{OF} on the row's own dictionary, at most as many a token as the teacher has. Higher is better.",
        better="higher",
        table="floor",
    ),
)
