"""The words of a report: what each metric is, and the order in which they are shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    label: str
    definition: str
    better: Literal["lower", "higher"] | None = None
    """Which direction is an improvement; None where the metric is held or only a reference."""
    decimals: int | None = 4
    """Digits after the point; None shows four significant digits."""


HEADLINE: dict[str, Metric] = {
    "l0": Metric("L0", "Mean number of non-zero latents per token.", decimals=2),
    "fvu": Metric(
        "FVU",
        "Fraction of variance unexplained: Σ‖x − x̂‖² / Σ‖x − x̄‖², where x̄ is the split's mean. Lower is better.",
        "lower",
    ),
    "fvu_at_l0": Metric(
        "FVU at L0",
        "FVU with all thresholds moved by one amount, solved on these very test tokens so that L0 is the teacher's. "
        "Its interval is conditional on that move. Lower is better.",
        "lower",
    ),
    "delta_ce": Metric(
        "ΔCE",
        "Added next-token cross-entropy, in nats, when x̂ replaces x: ce_sae − ce_clean. Lower is better.",
        "lower",
    ),
    "delta_ce_at_l0": Metric(
        "ΔCE at L0",
        "ΔCE with all thresholds moved by one amount, solved on these very test tokens so that L0 is the teacher's. "
        "Its interval is conditional on that move. Lower is better.",
        "lower",
    ),
    "loss_recovered": Metric(
        "Loss recovered",
        "(ce_zero − ce_sae) / (ce_zero − ce_clean): 1 is no damage, 0 is as bad as zeroing x. First positions, "
        "attention sinks and special tokens stay clean in every term, so it is not SAELens' ce_loss_score. Higher is "
        "better.",
        "higher",
    ),
    "kl": Metric("KL", "KL(clean ‖ SAE) between next-token distributions, in nats. Lower is better.", "lower"),
    "top1_agreement": Metric(
        "Top-1 agreement",
        "Share of positions whose most probable next token is the clean model's. Higher is better.",
        "higher",
    ),
    "alive_fraction": Metric(
        "Alive",
        "Share of latents that are non-zero at least once on the evaluated tokens. Higher is better.",
        "higher",
    ),
    "mse": Metric(
        "MSE",
        "Mean over tokens of ‖x − x̂‖², summed over the width. Lower is better.",
        "lower",
        decimals=None,
    ),
}
"""The columns of the main table, most useful first."""

FURTHER: dict[str, Metric] = {
    "explained_variance": Metric("Explained variance", "1 − FVU. Higher is better.", "higher"),
    "l0_eps": Metric(
        "L0 above ε",
        "Mean number of latents with |z| above the stated ε: the L0 of a gate that is never exactly 0.",
        decimals=2,
    ),
    "ce_clean": Metric("CE clean", "Next-token cross-entropy with x untouched, in nats."),
    "ce_sae": Metric("CE SAE", "Next-token cross-entropy with x replaced by x̂, in nats.", "lower"),
    "ce_zero": Metric("CE zero", "Next-token cross-entropy with x replaced by 0, in nats."),
    "ce_mean": Metric("CE mean", "Next-token cross-entropy with x replaced by its training mean, in nats."),
    "loss_recovered_mean": Metric(
        "Loss recovered (mean)", "Loss recovered with ce_mean in place of ce_zero. Higher is better.", "higher"
    ),
    "ce_loss_score": Metric(
        "CE loss score",
        "SAELens' figure: loss recovered with x̂, and zeros, written at every position, BOS and sinks too, and every "
        "next token counted. Higher is better.",
        "higher",
    ),
    **{
        f"probe_k{k}": Metric(
            f"Probe k={k}", f"Test accuracy of a linear probe on {k} latent(s), SAEBench protocol.", "higher"
        )
        for k in (1, 2, 5, 20)
    },
    "probe_dense": Metric("Probe dense", "Test accuracy of a linear probe on all latents.", "higher"),
}
"""The columns of the second table."""

PROBES = tuple(key for key in FURTHER if key.startswith("probe_"))

METRICS = HEADLINE | FURTHER

LATENT: dict[str, Metric] = {
    "change": Metric("Change", "1 − the cosine between the latent's decoder row and its teacher's. 0: not moved."),
    "cos_decoder": Metric("Decoder cosine", "Cosine between the latent's decoder row and its teacher's."),
    "cos_encoder": Metric("Encoder cosine", "Cosine between the latent's encoder direction and its teacher's."),
    "correlation": Metric(
        "Correlation", "Correlation of the latent's activations with its teacher's over the same tokens."
    ),
    "density": Metric("Density", "Share of tokens on which the latent is active.", decimals=None),
    "activation": Metric("Activation", "The latent's value on a token.", decimals=None),
}
"""What is said of a single latent."""

ABSORPTION: dict[str, Metric] = {
    "absorption_fraction": Metric(
        "Absorption",
        "Share of a first letter's direction that other latents carry in place of the letter's own; mean over words "
        "and letters. Lower is better.",
        "lower",
    ),
    "full_absorption": Metric(
        "Full absorption",
        "Share of words on which the letter's own latents are silent and one other carries it. Lower is better.",
        "lower",
    ),
    "letters": Metric("Letters", "First letters that the residual stream tells apart.", decimals=0),
    "words": Metric("Words", "Test words that were looked at.", decimals=0),
    "probe_f1": Metric("Probe F1", "F1 of the letters' probes on the residual vectors, the task's own reference."),
}
"""What the first-letter task measures."""

KNOWN = METRICS | LATENT | ABSORPTION


def metric(key: str) -> Metric:
    """What is known of a key; an unknown one is shown under its own name."""
    return KNOWN.get(key) or Metric(key, "", decimals=None)
