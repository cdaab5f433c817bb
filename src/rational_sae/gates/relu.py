"""ReLU: z = max(h, 0)."""

from __future__ import annotations

import torch
from torch import Tensor

from rational_sae.gates.base import Gate, mean_active
from rational_sae.gates.threshold import ThresholdGate


class ReLUGate(Gate):
    """z = max(h, 0). Its threshold is moved by an offset, which the SAE folds into b_enc."""

    architecture = "standard"
    family = "relu"
    offset: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("offset", torch.zeros(()))

    def level(self) -> Tensor:
        return self.offset

    def codes(self, value: Tensor, latent: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
        code = (value - self.offset).relu()
        return code, mean_active(code, tokens)

    def margin(self, h: Tensor) -> Tensor:
        return h.float() - self.offset

    def shift_(self, amount: float) -> None:
        self.offset += amount

    def as_jumprelu(self, d_sae: int) -> Tensor:
        return torch.zeros(d_sae, device=self.offset.device)

    def under(self, threshold: Tensor) -> Gate:
        return ThresholdGate(threshold)

    def subtracted(self) -> Tensor:
        return self.offset

    def formula(self) -> str:
        return "z_j = max(h_j, 0)"
