"""A scale for each token: between a fixed threshold and a quota.

A TopK gives every token the same number of latents, a threshold every latent the same bar. On SAEs of either kind the
best selection lies between: t = h / (s_j·c(x)), where c(x) = (u(x) / ū)^ρ follows the token's k-th largest
pre-activation u(x). ρ = 0 is a threshold; under ρ = 1 the k-th largest meets the same bar in all tokens. c(x) depends
on nothing that a threshold's shift moves, so matched sparsity is solved as exactly as without it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rational_sae.kernels.selection import kth_largest

WIDEST = 1.5
"""Largest |log(u/ū)| that counts: a token far from all others (no latent near its bar) keeps a bounded scale."""

TINY = 1e-3
"""Smallest u: a token with fewer than k pre-activations above it is at the end of the scale anyway."""


@dataclass(frozen=True)
class TokenScale:
    """c(x), as numbers."""

    k: int
    """Which of a token's pre-activations is looked at: near the L0 to be held."""
    power: float
    """ρ."""
    level: float
    """log ū, the mean of log u over the calibration split."""

    def of(self, t: Tensor) -> Tensor:
        """c(x): [n, 1] float32, of t = h / s: [n, d_sae]. It passes no gradient."""
        return ((_log_kth(t, self.k) - self.level).clamp(-WIDEST, WIDEST) * self.power).exp()[:, None]


def fit_token_scale(t: Tensor, k: int, power: float) -> TokenScale:
    """The token scale that is 1 in the geometric mean over t = h / s: [n, d_sae]."""
    k = min(max(k, 1), t.shape[1])
    return TokenScale(k, power, float(_log_kth(t, k).double().mean()))


@torch.no_grad()
def _log_kth(t: Tensor, k: int) -> Tensor:
    return kth_largest(t, k).clamp_min(TINY).log()
