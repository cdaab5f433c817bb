"""The teacher's per-token quota with a rational magnitude."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor

from rational_sae.errors import SettingsError
from rational_sae.gates.base import Gate, Numbers, mean_active
from rational_sae.gates.hard import POSITIVE_FLOOR, HardGate
from rational_sae.gates.rational import RationalGate
from rational_sae.gates.transition import Transition
from rational_sae.kernels.selection import where_largest
from rational_sae.rational import PartialFractions


class RationalTopKGate(RationalGate):
    """Rational on the k largest positive pre-activations of a token, 0 elsewhere."""

    mode = "topk"
    elementwise = False
    k: int

    def __init__(
        self,
        shape: PartialFractions,
        scale: Tensor,
        threshold: Tensor,
        *,
        k: int,
        gain: float = 1.0,
        right_slope: float = 1.0,
        transition: Transition | None = None,
    ) -> None:
        super().__init__(shape, scale, threshold, gain=gain, right_slope=right_slope, transition=transition)
        self.k = k  # pyright: ignore[reportIncompatibleVariableOverride]

    def places(self, h: Tensor) -> Tensor:
        return where_largest(h, self.k)

    def codes(self, value: Tensor, latent: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
        scale = self.scale[latent]
        r = self.value(value / scale)
        code = torch.where(value > 0, r.clamp_min(POSITIVE_FLOOR) * scale * self.log_gain.exp(), 0.0)
        return code, mean_active(code, tokens)

    def shift_(self, amount: float) -> None:
        if amount:
            raise NotImplementedError("a quota has no threshold to move")

    def support_in_words(self) -> str:
        return f"for the {self.k} largest h > 0 of a token, 0 elsewhere"

    @classmethod
    def designed(
        cls, shape: PartialFractions, scale: Tensor, threshold: Tensor, *, transition: Transition, k: int | None
    ) -> Self:
        if k is None:
            raise SettingsError("gate topk keeps a teacher's quota, and this teacher has none", "use --gate hard")
        return cls(shape, scale, threshold, k=k, transition=transition)

    def under(self, threshold: Tensor) -> Gate:
        gain = float(self.log_gain.exp())
        return HardGate(self.partial_fractions, self.scale.detach(), threshold, gain=gain, right_slope=self.right_slope)

    @classmethod
    def from_config(cls, config: Numbers, tensors: Mapping[str, Tensor]) -> Self:
        k = config.k(len(tensors["threshold"]))
        return cls(cls.stored_shape(config.numbers["coefficients"]), **cls.common_numbers(config, tensors), k=k)
