"""JumpReLU: a threshold for each latent."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rational_sae.gates.base import Gate, spread
from rational_sae.gates.hard_codes import HardCodes, level
from rational_sae.gates.transition import Transition, rectangle


class ThresholdGate(Gate):
    """z = h where h > τ_j, exactly 0 elsewhere; τ_j ≥ 0."""

    architecture = "jumprelu"
    family = "jumprelu"
    has_threshold = True
    transition: Transition
    identity: Tensor

    def __init__(self, threshold: Tensor, transition: Transition | None = None) -> None:
        """threshold: [d_sae]. transition: how τ gets its gradient; none is needed for inference."""
        super().__init__()
        self.threshold = nn.Parameter(threshold.float().clone())
        self.transition = transition or rectangle(torch.full_like(threshold, 0.1, dtype=torch.float32))
        self.register_buffer("identity", torch.tensor([0.0, 1.0, 1.0], device=threshold.device))

    def level(self) -> Tensor:
        return level(self.threshold, self.transition)

    def codes(self, value: Tensor, latent: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
        scale = torch.ones_like(self.threshold)
        return HardCodes.apply(value, latent, self.identity, scale, self.threshold, self.transition, 0.0, tokens)

    def margin(self, h: Tensor) -> Tensor:
        return (h.float() - self.threshold) / self.scales()

    def shift_(self, amount: float) -> None:
        with torch.no_grad():
            self.threshold += amount * self.scales()

    def rescale_(self, factor: Tensor) -> None:
        with torch.no_grad():
            self.threshold *= factor
        self.transition = self.transition.scaled(factor)  # pyright: ignore[reportIncompatibleVariableOverride]

    def scales(self) -> Tensor:
        """Thresholds move in proportion to themselves; one that is (nearly) 0 moves with the mean instead."""
        threshold = self.threshold.detach()
        return threshold.clamp_min(1e-3 * float(threshold.mean()) + 1e-12)

    def parameter_groups(self) -> dict[str, list[Tensor]]:
        return {"threshold": [self.threshold]}

    def as_jumprelu(self, d_sae: int) -> Tensor:
        return self.threshold.detach()

    def thresholded(self) -> Gate:
        return self

    def formula(self) -> str:
        return "z_j = h_j where h_j > θ_j, 0 elsewhere"

    def facts(self) -> dict[str, Any]:
        return {"threshold": spread(self.threshold) | {"zeros": int((self.threshold == 0).sum())}}

    def tensors(self) -> dict[str, Tensor]:
        return {"threshold": self.threshold.detach()}
