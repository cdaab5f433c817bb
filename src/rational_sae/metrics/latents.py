"""What is said of a single latent; `evaluation.features` measures it."""

from __future__ import annotations

from rational_sae.metrics.metric import Metric

LATENTS = (
    Metric(
        "change",
        "Change",
        "1 − the cosine between the latent's decoder row and its teacher's. 0: not moved.",
        table="latent",
    ),
    Metric(
        "cos_decoder",
        "Decoder cosine",
        "Cosine between the latent's decoder row and its teacher's.",
        table="latent",
    ),
    Metric(
        "cos_encoder",
        "Encoder cosine",
        "Cosine between the latent's encoder direction and its teacher's.",
        table="latent",
    ),
    Metric(
        "correlation",
        "Correlation",
        "Correlation of the latent's activations with its teacher's over the same tokens.",
        table="latent",
    ),
    Metric(
        "overlap",
        "Overlap",
        "Of the tokens on which the latent or its teacher's fires, the share on which both do (Jaccard index).",
        table="latent",
    ),
    Metric(
        "tokens_kept",
        "Tokens kept",
        "Of the ten tokens that the teacher's latent promotes most (its decoder row through the last norm and the "
        "unembedding), the share that this one does, too.",
        table="latent",
    ),
    Metric("density", "Density", "Share of tokens on which the latent is active.", table="latent", decimals=None),
    Metric("activation", "Activation", "The latent's value on a token.", table="latent", decimals=None),
)
