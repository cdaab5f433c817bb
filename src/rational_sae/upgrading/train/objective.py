"""What a candidate minimises: the squared error relative to the variance of x, and λ times a penalty on its codes.

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

MIN_WEIGHT = 2e-2
"""Smallest first λ: a gate that starts at its own optimum has an estimate of 0."""


@dataclass(frozen=True)
class Objective:
    """The loss of one SAE. `variance`: of x over the calibration split, a token's sum over d_in."""

    sae: SAE
    target_l0: float
    variance: float
    penalises: Literal["l0", "l1"]
    sparse: bool
    """Whether a step takes the sparse products."""

    @property
    def uses_l1(self) -> bool:
        gate = self.sae.gate
        return gate.elementwise and (self.penalises == "l1" or not gate.has_threshold)

    def penalty(self, found: Reconstruction, tokens: int) -> Tensor:
        """Of so many tokens: a scalar, of order 1."""
        if self.uses_l1:
            return self._l1(found, tokens)
        return found.l0 / self.target_l0 if found.l0.requires_grad else torch.zeros((), device=found.l0.device)

    def _l1(self, found: Reconstruction, tokens: int) -> Tensor:
        """‖z‖₁ weighted by decoder norms, mean over tokens, relative to √variance."""
        norm = self.sae.W_dec.norm(dim=-1)
        size = found.code.abs()
        total = size.sum(0) @ norm if size.dim() > 1 else size @ norm[found.latent]
        return total / (tokens * self.variance**0.5)

    def first_weight(self, x: Tensor) -> float:
        """λ at which the teacher is stationary along the direction that sparsity moves: the Lagrange multiplier of L0.

        For ‖z‖₁ the direction is the scale of z; for thresholds it is the common shift. x: [n, d_in].
        """
        found = reconstruct(self.sae, x, sparse=self.sparse)
        rest = self.sae.target(x) - found.x_hat
        estimate = 0.0
        if self.uses_l1:
            state = self.sae.normalise(x)[1]
            nothing = self.sae.decode(x.new_zeros(1, self.sae.d_sae), state)
            scaled = found.x_hat - self.sae.with_skip(nothing, x[..., : self.sae.d_in])
            gain = -2 * float((rest * scaled).sum(-1).mean().detach()) / self.variance
            estimate = -gain / float(self._l1(found, len(x)).detach())
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
