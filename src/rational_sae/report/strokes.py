"""Colour, dash and shape of a line: middle tones that are legible on white and on black, and differ in print."""

from __future__ import annotations

from dataclasses import dataclass

CIRCLE = "M0,-1A1,1,0,1,1,0,1A1,1,0,1,1,0,-1Z"
SQUARE = "M-.9,-.9H.9V.9H-.9Z"
DIAMOND = "M0,-1.2L1.2,0L0,1.2L-1.2,0Z"
UP = "M0,-1.1L1.1,.9H-1.1Z"
DOWN = "M0,1.1L-1.1,-.9H1.1Z"


@dataclass(frozen=True)
class Stroke:
    """How a line and its points are drawn."""

    colour: str
    dash: tuple[int, ...] = (1, 0)
    """On, off, … in pixels; (1, 0) is solid."""
    shape: str = CIRCLE
    """Of a point: an SVG path within ±1, which Vega and the page's legend draw alike."""
