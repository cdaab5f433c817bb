"""The metrics of every row, from sums over documents: reconstruction, sparsity, next-token behaviour."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rational_sae.metrics.metric import Guesses, Metric, PredictionColumn, Sums, TokenColumn

if TYPE_CHECKING:
    from torch import Tensor

    from rational_sae.metrics.metric import Array

AT_L0 = (
    "with all thresholds moved by one amount, solved on these very test tokens so that L0 is the teacher's. "
    "Its interval is conditional on that move. Lower is better."
)


def _cross_entropy(guesses: Guesses) -> Tensor:
    return -guesses.log_q.gather(-1, guesses.labels[:, None])[:, 0]


def _kl(guesses: Guesses) -> Tensor:
    return (guesses.log_p.exp() * (guesses.log_p - guesses.log_q)).sum(-1)


def _agreed(guesses: Guesses) -> Tensor:
    own = guesses.log_q.gather(-1, guesses.likeliest[:, None])[:, 0]
    return (own == guesses.log_q.amax(-1)).float()  # amax is many times quicker than argmax on a CPU


SQUARED_ERROR = TokenColumn("squared_error", lambda seen: (seen.x - seen.x_hat).double().pow(2).sum(-1))
L0 = TokenColumn("l0", lambda seen: seen.active.sum(-1))
L0_EPS = TokenColumn("l0_eps", lambda seen: seen.above_epsilon)
CE = PredictionColumn("ce", _cross_entropy)
KL = PredictionColumn("kl", _kl)
AGREED = PredictionColumn("agreed", _agreed)
"""1 where both find the same token likeliest, else 0."""


def _fvu(sums: Sums) -> Array:
    return sums.columns["squared_error"] / sums.variance


def _ce(sums: Sums) -> Array:
    return sums.columns["ce"] / sums.predictions


def _delta_ce(sums: Sums) -> Array:
    return _ce(sums) - sums.ce["clean"]


def _recovered(sums: Sums, ablation: str) -> Array:
    return (sums.ce[ablation] - _ce(sums)) / (sums.ce[ablation] - sums.ce["clean"])


def _recovered_everywhere(sums: Sums) -> Array | None:
    ce = sums.everywhere
    if not ce:
        return None
    return (ce["zero"] - ce["sae"]) / (ce["zero"] - ce["clean"])


HEADLINE = (
    Metric(
        "l0",
        "L0",
        "Mean number of non-zero latents per token.",
        unit="latents",
        table="headline",
        decimals=2,
        sums=(L0,),
        of=lambda sums: sums.columns["l0"] / sums.tokens,
    ),
    Metric(
        "fvu",
        "FVU",
        "Fraction of variance unexplained: Σ‖x − x̂‖² / Σ‖x − x̄‖², where x̄ is the split's mean. Lower is better.",
        better="lower",
        table="headline",
        sums=(SQUARED_ERROR,),
        of=_fvu,
        relative=True,
    ),
    Metric(
        "fvu_at_l0",
        "FVU at L0",
        f"FVU {AT_L0}",
        better="lower",
        table="headline",
        sums=(SQUARED_ERROR,),
        of=lambda sums: sums.at_l0 and _fvu(sums.at_l0),
        relative=True,
    ),
    Metric(
        "delta_ce",
        "ΔCE",
        "Added next-token cross-entropy, in nats, when x̂ replaces x: ce_sae − ce_clean. Lower is better.",
        unit="nats",
        better="lower",
        table="headline",
        sums=(CE,),
        of=_delta_ce,
        relative=True,
    ),
    Metric(
        "delta_ce_at_l0",
        "ΔCE at L0",
        f"ΔCE {AT_L0}",
        unit="nats",
        better="lower",
        table="headline",
        sums=(CE,),
        of=lambda sums: sums.at_l0 and _delta_ce(sums.at_l0),
        relative=True,
    ),
    Metric(
        "loss_recovered",
        "Loss recovered",
        "(ce_zero − ce_sae) / (ce_zero − ce_clean): 1 is no damage, 0 is as bad as zeroing x. First positions, "
        "attention sinks and special tokens stay clean in every term, so it is not SAELens' ce_loss_score. Higher is "
        "better.",
        better="higher",
        table="headline",
        sums=(CE,),
        of=lambda sums: _recovered(sums, "zero"),
        weighed=True,
    ),
    Metric(
        "kl",
        "KL",
        "KL(clean ‖ SAE) between next-token distributions, in nats. Lower is better.",
        unit="nats",
        better="lower",
        table="headline",
        sums=(KL,),
        of=lambda sums: sums.columns["kl"] / sums.predictions,
        weighed=True,
        relative=True,
    ),
    Metric(
        "top1_agreement",
        "Top-1 agreement",
        "Share of positions whose most probable next token is the clean model's. Higher is better.",
        better="higher",
        table="headline",
        sums=(AGREED,),
        of=lambda sums: sums.columns["agreed"] / sums.predictions,
        weighed=True,
    ),
    Metric(
        "alive_fraction",
        "Alive",
        "Share of latents that are non-zero at least once on the evaluated tokens. Higher is better.",
        better="higher",
        table="headline",
        of=lambda sums: (sums.fired > 0).mean(),
    ),
    Metric(
        "mse",
        "MSE",
        "Mean over tokens of ‖x − x̂‖², summed over the width. Lower is better.",
        better="lower",
        table="headline",
        decimals=None,
        sums=(SQUARED_ERROR,),
        of=lambda sums: sums.columns["squared_error"] / sums.tokens,
    ),
)
"""The columns of the main table, most useful first."""

FURTHER = (
    Metric(
        "explained_variance",
        "Explained variance",
        "1 − FVU. Higher is better.",
        better="higher",
        sums=(SQUARED_ERROR,),
        of=lambda sums: 1 - _fvu(sums),
    ),
    Metric(
        "l0_eps",
        "L0 above ε",
        "Mean number of latents with |z| above the stated ε: the L0 of a gate that is never exactly 0.",
        unit="latents",
        decimals=2,
        sums=(L0_EPS,),
        of=lambda sums: sums.columns["l0_eps"] / sums.tokens,
    ),
    Metric(
        "ce_clean",
        "CE clean",
        "Next-token cross-entropy with x untouched, in nats.",
        unit="nats",
        of=lambda sums: sums.ce.get("clean"),
    ),
    Metric(
        "ce_sae",
        "CE SAE",
        "Next-token cross-entropy with x replaced by x̂, in nats.",
        unit="nats",
        better="lower",
        sums=(CE,),
        of=_ce,
    ),
    Metric(
        "ce_zero",
        "CE zero",
        "Next-token cross-entropy with x replaced by 0, in nats.",
        unit="nats",
        of=lambda sums: sums.ce.get("zero"),
    ),
    Metric(
        "ce_mean",
        "CE mean",
        "Next-token cross-entropy with x replaced by its training mean, in nats.",
        unit="nats",
        of=lambda sums: sums.ce.get("mean"),
    ),
    Metric(
        "loss_recovered_mean",
        "Loss recovered (mean)",
        "Loss recovered with ce_mean in place of ce_zero. Higher is better.",
        better="higher",
        sums=(CE,),
        of=lambda sums: _recovered(sums, "mean"),
    ),
    Metric(
        "ce_loss_score",
        "CE loss score",
        "SAELens' figure: loss recovered with x̂, and zeros, written at every position, BOS and sinks too, and every "
        "next token counted. Higher is better.",
        better="higher",
        of=_recovered_everywhere,
    ),
)
"""Columns of the second table."""

MEASURED = (*HEADLINE, *FURTHER)
