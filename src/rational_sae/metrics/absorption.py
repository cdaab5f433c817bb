"""What the first-letter task measures; `evaluation.absorption` does."""

from __future__ import annotations

from rational_sae.metrics.metric import Metric

ABSORPTION = (
    Metric(
        "absorption_fraction",
        "Absorption",
        "Share of a first letter's direction that other latents carry in place of the letter's own; mean over words "
        "and letters. Lower is better.",
        better="lower",
        table="absorption",
    ),
    Metric(
        "full_absorption",
        "Full absorption",
        "Share of words on which the letter's own latents are silent and one other carries it. Lower is better.",
        better="lower",
        table="absorption",
    ),
    Metric(
        "letters",
        "Letters",
        "First letters that the residual stream tells apart.",
        unit="letters",
        table="absorption",
        decimals=0,
    ),
    Metric("words", "Words", "Test words that were looked at.", unit="words", table="absorption", decimals=0),
    Metric(
        "probe_f1",
        "Probe F1",
        "F1 of the letters' probes on the residual vectors, the task's own reference.",
        table="absorption",
    ),
)
