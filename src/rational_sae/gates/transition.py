"""How a hard threshold passes gradient: a kernel of bounded width around it, zero outside.

Forward, an entry is on or off. Backward, the step is treated as if it were smooth inside a band of half-width w around
the threshold τ: d[h > τ]/dh = K((h − τ)/w)/w with K ≥ 0 on [−1, 1] and ∫K = 1. K is either the slope of the initial
rational's own transition, or the rectangle of the straight-through estimator (Rajamanoharan et al.,
arXiv 2407.14435, §4).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rational_sae.rational import PartialFractions

PROFILE_POINTS = 257
"""Samples of K on [−1, 1], interpolated linearly."""


@dataclass(frozen=True)
class Transition:
    """The gradient of a threshold."""

    profile: Tensor
    """[PROFILE_POINTS] float32: K on an even grid of [−1, 1]; integrates to 1."""
    half_width: Tensor
    """[d_sae] float32, in units of the pre-activation."""
    to_input: bool
    """Whether the pre-activation gets the threshold's gradient too, or the threshold alone.

    False by default: on the TopK development cell (300 steps, matched L0, test tokens) the rational gate reached
    FVU .1679 with thresholds alone and .1694 with both; without the rational the two were equal (.1682).
    """

    def kernel(self, h: Tensor, threshold: Tensor, latent: Tensor) -> Tensor:
        """K((h − τ)/w)/w for listed entries. h, threshold: [n]; latent: [n] int64 indices. Returns [n]."""
        width = self.half_width[latent]
        place = ((h - threshold) / width + 1.0) * ((PROFILE_POINTS - 1) / 2)
        left = place.floor().clamp(0, PROFILE_POINTS - 2)
        fraction = place - left
        index = left.long()
        value = torch.lerp(self.profile[index], self.profile[index + 1], fraction.clamp(0.0, 1.0))
        return torch.where((place >= 0) & (place <= PROFILE_POINTS - 1), value / width, 0.0)

    def scaled(self, factor: Tensor) -> Transition:
        """The same transition after pre-activations were multiplied by factor: [d_sae]."""
        return Transition(self.profile, self.half_width * factor, self.to_input)

    def to(self, device: torch.device) -> Transition:
        return Transition(self.profile.to(device), self.half_width.to(device), self.to_input)


def rectangle(half_width: Tensor) -> Transition:
    """The straight-through estimator's kernel, thresholds only. half_width: [d_sae]."""
    return Transition(torch.full((PROFILE_POINTS,), 0.5, device=half_width.device), half_width, to_input=False)


def rational_transition(fit: PartialFractions, centre: float, gap: float, half_width: Tensor) -> Transition:
    """The slope of a fitted jump's own step S(t) = r(t)/t across its gap, clipped at 0 and normalised.

    fit: of t·[t > centre] off the gap (centre − gap, centre + gap). half_width: [d_sae].
    """
    v = torch.linspace(-1, 1, PROFILE_POINTS, dtype=torch.float64)
    t = centre + gap * v
    r, d = torch.from_numpy(fit(t.numpy())), torch.from_numpy(fit.derivative(t.numpy()))
    slope = (d / t - r / t**2).clamp_min(0.0)
    profile = (slope / torch.trapezoid(slope, v)).float()
    return Transition(profile.to(half_width.device), half_width, to_input=False)
