"""What became of a latent on the tokens that were looked at: words and strokes, in the order of display."""

from __future__ import annotations

from dataclasses import dataclass

from rational_sae.report.strokes import DOWN, SQUARE, UP, Stroke


@dataclass(frozen=True)
class Status:
    words: str
    stroke: Stroke


STATUSES: dict[str, Status] = {
    "kept": Status("active in both", Stroke("#808080")),
    "newly_alive": Status("active in the RSAE only", Stroke("#2e9b5b", shape=UP)),
    "newly_dead": Status("active in the teacher only", Stroke("#e0561b", shape=DOWN)),
    "dead": Status("active in neither", Stroke("#808080", shape=SQUARE)),
}
"""The key is a latent's `status` in report.json."""
