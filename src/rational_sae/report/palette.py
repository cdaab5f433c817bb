"""Colour and dash of each line: middle tones that are legible on white and on black, and differ in print."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Stroke:
    colour: str
    dash: tuple[int, ...] = (1, 0)
    """On, off, … in pixels; (1, 0) is solid."""


STROKES: dict[str, Stroke] = {
    "teacher": Stroke("#808080"),
    "teacher_rescaled": Stroke("#808080", (2, 3)),
    "init": Stroke("#a06cc8", (6, 3)),
    "init_hard": Stroke("#a06cc8", (2, 3)),
    "rsae": Stroke("#e0561b"),
    "identity": Stroke("#2e9b5b", (8, 3)),
    "control_native": Stroke("#2f86d6", (4, 2)),
    "control_jumprelu": Stroke("#b98a14", (8, 3, 2, 3)),
}
FALLBACK = (Stroke("#c2478f"), Stroke("#2a9d9d"), Stroke("#7a8b2a", (4, 2)), Stroke("#6b7fd7", (2, 2)))

GATES: dict[str, Stroke] = {
    "teacher": STROKES["teacher"],
    "initial": STROKES["init"],
    "fine-tuned": STROKES["rsae"],
}
"""The curves of the gate plot."""


def strokes(names: Iterable[str]) -> dict[str, Stroke]:
    """A stroke for every row; a known row looks the same in every chart of every report."""
    unknown = 0
    chosen: dict[str, Stroke] = {}
    for name in names:
        if name in STROKES:
            chosen[name] = STROKES[name]
        else:
            chosen[name] = FALLBACK[unknown % len(FALLBACK)]
            unknown += 1
    return chosen
