"""A gate of earlier versions, which is read and no longer trained: a scale for each token.

A TopK gives every token the same number of latents, a threshold every latent the same bar. Here t = h / (s_j·c(x)),
where c(x) = (u(x) / ū)^ρ follows the token's k-th largest pre-activation u(x). ρ = 0 is a threshold; under ρ = 1 the
k-th largest meets the same bar in all tokens. Nothing was gained by training it (dev/log/token-scale.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import Tensor

from rational_sae.gates.base import Numbers
from rational_sae.gates.hard import HardGate
from rational_sae.kernels.selection import kth_largest
from rational_sae.rational import PartialFractions

WIDEST = 1.5
"""Largest |log(u/ū)| that counts: a token far from all others (no latent near its bar) keeps a bounded scale."""

TINY = 1e-3
"""Smallest u: a token with fewer than k pre-activations above it is at the end of the scale anyway."""


@dataclass(frozen=True)
class TokenScale:
    """c(x), as numbers."""

    k: int
    """Which of a token's pre-activations is looked at."""
    power: float
    """ρ."""
    level: float
    """log ū."""

    @torch.no_grad()
    def of(self, t: Tensor) -> Tensor:
        """c(x): [n, 1] float32, of t = h / s: [n, d_sae]. It passes no gradient."""
        u = kth_largest(t, self.k).clamp_min(TINY).log()
        return ((u - self.level).clamp(-WIDEST, WIDEST) * self.power).exp()[:, None]


class TokenScaledGate(HardGate):
    """z_j = c(x)·φ_j(h_j/c(x)), with the hard gate's φ."""

    lists_entries = False

    def __init__(
        self, shape: PartialFractions, scale: Tensor, threshold: Tensor, *, token: TokenScale, **options: Any
    ) -> None:
        super().__init__(shape, scale, threshold, **options)
        self.token = token

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        h = h.float()
        c = self._scale_of_tokens(h)
        z, l0 = super().forward(h / c)
        return z * c, l0

    def margin(self, h: Tensor) -> Tensor:
        h = h.float()
        return super().margin(h / self._scale_of_tokens(h))

    def _scale_of_tokens(self, h: Tensor) -> Tensor:
        return self.token.of(h.detach() / self.scale.detach())

    def thresholded(self) -> HardGate:
        gain = float(self.log_gain.detach().exp())
        return HardGate(
            self.partial_fractions,
            self.scale.detach(),
            self.threshold.detach(),
            gain=gain,
            right_slope=self.right_slope,
        )

    def formula(self) -> str:
        code = super().formula().removeprefix("z_j = ")
        return f"z_j = κ·{code}, of h/κ; κ(x) = (u/ū)^{self.token.power:g}, u the h/s of rank {self.token.k}"

    def facts(self) -> dict[str, Any]:
        return super().facts() | {"token_scale": asdict(self.token)}

    def to_config(self) -> dict[str, Any]:
        return super().to_config() | {"token_scale": asdict(self.token)}

    @classmethod
    def reads(cls, numbers: Mapping[str, Any]) -> bool:
        return super().reads(numbers) and numbers.get("token_scale") is not None

    @classmethod
    def from_config(cls, config: Numbers, tensors: Mapping[str, Tensor]) -> Self:
        token = _checked(config, len(tensors["threshold"]))
        shape = cls.stored_shape(config.numbers["coefficients"])
        return cls(shape, **cls.common_numbers(config, tensors), token=token)


def _checked(config: Numbers, d_sae: int) -> TokenScale:
    given = config.numbers["token_scale"]
    try:
        found = TokenScale(k=int(given["k"]), power=float(given["power"]), level=float(given["level"]))
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise config.wrong("token_scale", "an object with k, power and level") from error
    if not (1 <= found.k <= d_sae and 0 <= found.power <= 1 and math.isfinite(found.level)):
        raise config.wrong("token_scale", f"k from 1 to {d_sae}, a power from 0 to 1 and a finite level")
    return found
