"""The whole job on embedded inputs: the demo's teachers, the embedded model and text."""

from __future__ import annotations

from rational_sae.formats.shipped import FAMILIES, PREFIX
from rational_sae.upgrading.settings import Settings

__all__ = ["DEMO_EVAL_TOKENS", "DEMO_STEPS", "DEMO_TRAIN_TOKENS", "FAMILIES", "demo_settings"]

DEMO_STEPS, DEMO_TRAIN_TOKENS, DEMO_EVAL_TOKENS = 400, 131_072, 6_144
"""Sized for eight minutes on two cores, the controls included."""


def demo_settings(family: str, seed: int = 0) -> Settings:
    """Settings of `rsae demo`."""
    return Settings(
        teacher=f"{PREFIX}{family}",
        text="news",
        steps=DEMO_STEPS,
        train_tokens=DEMO_TRAIN_TOKENS,
        eval_tokens=DEMO_EVAL_TOKENS,
        seed=seed,
    )
