"""TopK: a quota for each token."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rational_sae.gates.base import Gate, mean_active
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.kernels.selection import where_largest


class TopKGate(Gate):
    """The k largest pre-activations of each token, then ReLU."""

    architecture = "topk"
    family = "topk"
    elementwise = False
    k: int

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k  # pyright: ignore[reportIncompatibleVariableOverride]

    def places(self, h: Tensor) -> Tensor:
        return where_largest(h, self.k)

    def codes(self, value: Tensor, latent: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
        code = value.relu()
        return code, mean_active(code, tokens)

    def formula(self) -> str:
        return f"z_j = max(h_j, 0) for the {self.k} largest h of a token, 0 elsewhere"

    def facts(self) -> dict[str, Any]:
        return {"k": self.k}

    def to_config(self) -> dict[str, Any]:
        return {"k": self.k, "rescale_acts_by_decoder_norm": False}

    def under(self, threshold: Tensor) -> Gate:
        return ThresholdGate(threshold)
