"""What a candidate minimises: the squared error relative to the variance of x, and λ times a penalty on its codes.

In steps over sequences the KL of the model's predictions takes half of the error's place, in the error's own size:
½(α·KL + error) with α = error / KL, not differentiated, so that λ and learning rates stay (Karvonen, arXiv 2503.17272).

The penalty is the gate's own L0 where a threshold has a gradient, ‖z‖₁ weighted by decoder norms where there is none
(ReLU and smooth gates) or where it is asked for, and nothing for a TopK.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rational_sae.sae.model import SAE
from rational_sae.sae.sparse import Reconstruction, reconstruct
from rational_sae.upgrading.train.predictions import Pull

TANH_SCALE = 4.0
"""Of a code times its decoder row's norm (Anthropic, January 2025 update; `jumprelu_tanh_scale` of SAELens)."""

MIN_WEIGHT = 2e-2
"""Smallest first λ: a gate that starts at its own optimum has an estimate of 0."""


@dataclass(frozen=True)
class Objective:
    """The loss of one SAE. `variance`: of x over the calibration split, a token's sum over d_in."""

    sae: SAE
    target_l0: float
    variance: float
    penalises: Literal["l0", "l1", "tanh"]
    sparse: bool
    """Whether a step takes the sparse products."""

    @property
    def uses_sizes(self) -> bool:
        """Whether the penalty is one on the sizes of codes."""
        gate = self.sae.gate
        if not self.sae.W_enc.requires_grad:  # codes stay as they are
            return False
        return gate.elementwise and (self.penalises != "l0" or not gate.has_threshold)

    def penalty(self, found: Reconstruction, tokens: int) -> Tensor:
        """Of so many tokens: a scalar, of order 1."""
        if self.uses_sizes:
            return self._sizes(found, tokens)
        return found.l0 / self.target_l0 if found.l0.requires_grad else torch.zeros((), device=found.l0.device)

    def with_predictions(self, own_error: Tensor, error: float, kl: float, x_hat: Tensor, pull: Pull) -> Tensor:
        """What takes the place of the relative error: its gradient is that of ½(α·KL + error).

        own_error: this process's share of the mean ‖x − x̂‖²; error, kl: of the whole batch; x_hat: [m, d_in].
        """
        alpha = error / self.variance / kl if kl > 0 else 0.0
        along = (pull.gradient * x_hat).sum()
        return 0.5 * own_error / self.variance + 0.5 * alpha * (along + (pull.kl - along.detach()))

    def _sizes(self, found: Reconstruction, tokens: int, scale: Tensor | float = 1.0) -> Tensor:
        """‖z‖₁ weighted by decoder norms, mean over tokens, relative to √variance; or Σ tanh(c·z_j·‖W_dec,j‖), relative
        to the L0. scale: of all codes."""
        norm, size = self.sae.W_dec.norm(dim=-1), found.code.abs() * scale
        if self.penalises == "tanh" and self.sae.gate.has_threshold:
            return (TANH_SCALE * size * norm[found.latent]).tanh().sum() / (tokens * self.target_l0)
        total = size.sum(0) @ norm if size.dim() > 1 else size @ norm[found.latent]
        return total / (tokens * self.variance**0.5)

    def _slope(self, found: Reconstruction, tokens: int) -> float:
        """Derivative of the penalty along a common scale of all codes; ‖z‖₁ is its own."""
        if self.penalises != "tanh":
            return float(self._sizes(found, tokens).detach())
        scale = torch.ones((), device=found.code.device, requires_grad=True)
        return float(torch.autograd.grad(self._sizes(found, tokens, scale), scale)[0])

    def first_weight(self, x: Tensor) -> float:
        """λ at which the teacher is stationary along the direction that sparsity moves: the Lagrange multiplier of L0.

        For ‖z‖₁ the direction is the scale of z; for thresholds it is the common shift. x: [n, d_in].
        """
        found = reconstruct(self.sae, x, sparse=self.sparse)
        rest = self.sae.target(x) - found.x_hat
        estimate = 0.0
        if self.uses_sizes:
            state = self.sae.normalise(x)[1]
            nothing = self.sae.decode(x.new_zeros(1, self.sae.d_sae), state)
            scaled = found.x_hat - self.sae.with_skip(nothing, x[..., : self.sae.d_in])
            gain = -2 * float((rest * scaled).sum(-1).mean().detach()) / self.variance
            estimate = -gain / self._slope(found, len(x))
        elif found.l0.requires_grad:
            (rest.pow(2).sum(-1).mean() / self.variance).backward(retain_graph=True)
            gain = _threshold_slope(self.sae)
            self.sae.zero_grad(set_to_none=True)
            (found.l0 / self.target_l0).backward()
            estimate = -gain / min(-1e-12, _threshold_slope(self.sae))
            self.sae.zero_grad(set_to_none=True)
        return max(MIN_WEIGHT, estimate)


def _threshold_slope(sae: SAE) -> float:
    """Derivative along the common threshold shift, from the gradient that is now in place."""
    gradient = sae.gate.threshold.grad
    return 0.0 if gradient is None else float((gradient * sae.gate.scales()).sum())
