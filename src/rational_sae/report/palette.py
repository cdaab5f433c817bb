"""Colour and dash of each line: middle tones that are legible on white and on black, and differ in print."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

CIRCLE = "M0,-1A1,1,0,1,1,0,1A1,1,0,1,1,0,-1Z"
SQUARE = "M-.9,-.9H.9V.9H-.9Z"
DIAMOND = "M0,-1.2L1.2,0L0,1.2L-1.2,0Z"
UP = "M0,-1.1L1.1,.9H-1.1Z"
DOWN = "M0,1.1L-1.1,-.9H1.1Z"


@dataclass(frozen=True)
class Stroke:
    colour: str
    dash: tuple[int, ...] = (1, 0)
    """On, off, … in pixels; (1, 0) is solid."""
    shape: str = CIRCLE
    """Of a point: an SVG path within ±1, which Vega and the page's legend draw alike."""


STROKES: dict[str, Stroke] = {
    "teacher": Stroke("#808080"),
    "teacher_rescaled": Stroke("#808080", (2, 3), SQUARE),
    "init": Stroke("#a06cc8", (6, 3), DIAMOND),
    "init_hard": Stroke("#a06cc8", (2, 3), DOWN),
    "rsae": Stroke("#e0561b"),
    "identity": Stroke("#2e9b5b", (8, 3), DIAMOND),
    "control_native": Stroke("#2f86d6", (4, 2), SQUARE),
    "control_jumprelu": Stroke("#b98a14", (8, 3, 2, 3), UP),
    "activations": Stroke("#6b7fd7", (2, 2), DOWN),
}
FALLBACK = (
    Stroke("#c2478f"),
    Stroke("#2a9d9d", shape=SQUARE),
    Stroke("#7a8b2a", (4, 2), DIAMOND),
    Stroke("#6b7fd7", (2, 2), UP),
    Stroke("#b98a14", (8, 3), DOWN),
)
STATUS: dict[str, Stroke] = {
    "kept": Stroke("#808080"),
    "newly_alive": Stroke("#2e9b5b", shape=UP),
    "newly_dead": Stroke("#e0561b", shape=DOWN),
    "dead": Stroke("#808080", shape=SQUARE),
}
"""Latents by what became of them."""

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
