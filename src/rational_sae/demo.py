"""The whole job on embedded inputs: the demo's teachers, the embedded model and text."""

from __future__ import annotations

from pathlib import Path

from rational_sae.errors import SourceError
from rational_sae.upgrading.settings import Settings

FAMILIES = ("relu", "jumprelu", "topk")

DEMO_STEPS, DEMO_TRAIN_TOKENS, DEMO_EVAL_TOKENS = 400, 131_072, 6_144
"""Sized for eight minutes on two cores, the controls included."""


def demo_settings(family: str, seed: int = 0) -> Settings:
    """Settings of `rsae demo`. Raises SourceError outside a checkout of the repository, where the teachers lie."""
    teacher = Path(__file__).parents[2] / "demo" / "teachers" / family
    if not teacher.is_dir():
        raise SourceError(
            f"the demo's teacher {family} is not installed with the package",
            "run the demo from a checkout of the repository",
        )
    return Settings(
        teacher=str(teacher),
        text="news",
        steps=DEMO_STEPS,
        train_tokens=DEMO_TRAIN_TOKENS,
        eval_tokens=DEMO_EVAL_TOKENS,
        seed=seed,
    )
