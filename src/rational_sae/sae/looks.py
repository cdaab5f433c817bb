"""Looks before the last: what a first estimate of the codes leaves unexplained is shown to the encoder again.

    ẑ  = φ₀(h₀)                    an estimate, which nobody counts; 0 where h₀ ≤ floor·u
    e  = n(x) − (W_decᵀẑ + b_dec)  what it leaves
    h₁ = h₀ + α·W_encᵀe            through the same encoder; more looks go on from h₁ with their own φ and α

One affine map and one gate choose active latents from x alone, and cannot see that one latent explains what another
fires on (O'Neill, Gumran and Klindt, arXiv 2411.13117). φ₀(h) = u_j·r(h/u_j), a smooth rational function, estimates
E[z | h₀]. Its unit u_j is in proportion to the gate's threshold τ_j while that is trained (`candidates.follow_`); later
moves of all thresholds to an L0 leave it, so that they move no pre-activation. Only candidates count, entries with
h₀ > floor·u_j: the others keep h₀, which no threshold is below.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from rational_sae.gates.base import Float32Module
from rational_sae.gates.rational import keep_in_bounds_, pack, unpack
from rational_sae.kernels import LINEAR, apply_rational
from rational_sae.kernels.selection import where_above, where_true
from rational_sae.rational import PartialFractions
from rational_sae.sae.entries import Decode, Dots, Entries

UNIT = "look_unit"
"""The name of u among an SAE's tensors."""


class Look(Float32Module):
    """One estimate and the step that follows it."""

    cut: Tensor

    def __init__(self, shape: PartialFractions, alpha: float, *, right_slope: float = 1.0, cut: float) -> None:
        """shape: r on [−1, 1]; alpha: α; cut: in t, below which the estimate is 0."""
        super().__init__()
        self.shape = nn.Parameter(pack(shape, right_slope))
        self.alpha = nn.Parameter(torch.tensor(float(alpha)))
        self.register_buffer("cut", torch.tensor(float(cut)))

    @property
    def coefficients(self) -> PartialFractions:
        """The current r, on [−1, 1]."""
        return unpack(self.shape)

    def estimate(self, h: Tensor, unit: Tensor) -> Tensor:
        """ẑ of pre-activations and their latents' units, of one shape."""
        t = h / unit
        return torch.where(t > self.cut, apply_rational(t, self.shape) * unit, 0.0)


class Looks(Float32Module):
    """All looks before the last, over the same candidates."""

    floor: Tensor
    unit: Tensor

    def __init__(self, each: list[Look], floor: float, unit: Tensor, least: float = 0.0) -> None:
        """floor: in t; entries below it are no candidates. unit: [d_sae], u, positive. least: for training alone, what
        a threshold counts as at least in u's pattern, of the gate's scale."""
        super().__init__()
        self.least = least
        self.each = nn.ModuleList(each)
        self.register_buffer("floor", torch.tensor(float(floor)))
        self.register_buffer("unit", unit.detach().float().clone())

    def __iter__(self) -> Iterator[Look]:
        return iter(cast(list[Look], self.each))

    def __len__(self) -> int:
        """How many looks there are in all, the last among them."""
        return len(self.each) + 1

    @property
    def level(self) -> Tensor:
        """[d_sae]: the first pre-activation above which an entry is a candidate."""
        return self.floor * self.unit

    def forward(self, h: Tensor, rest: Tensor, W_enc: Tensor, W_dec: Tensor) -> Tensor:
        """The last look's pre-activations: [..., d_sae], by the plain form where gradients are recorded.

        h: [..., d_sae] of the first; rest: [..., d_in], n(x) − b_dec; W_enc: [d_in, d_sae], W_dec: [d_sae, d_in], both
        float32.
        """
        flat, left = h.reshape(-1, h.shape[-1]), rest.reshape(-1, rest.shape[-1])
        if torch.is_grad_enabled():
            return self.dense(flat, left, W_enc, W_dec).view_as(h)
        return self.again(flat, left, W_enc.T, W_dec).view_as(h)

    def dense(self, h: Tensor, rest: Tensor, W_enc: Tensor, W_dec: Tensor) -> Tensor:
        """The last look's pre-activations by dense products, the plain form that `listed` is tested against.

        h: [n, d_sae] of the first; rest: [n, d_in], n(x) − b_dec. Returns [n, d_sae].
        """
        first, candidates = h, h > self.level
        for look in self:
            estimate = torch.where(candidates, look.estimate(h, self.unit.expand_as(h)), 0.0)
            h = h + look.alpha * ((rest - estimate @ W_dec) @ W_enc)
        return torch.where(candidates, h, first)

    def listed(self, value: Tensor, entries: Entries, rest: Tensor, W_enc: Tensor, W_dec: Tensor) -> Tensor:
        """The same over listed candidates, differentiable. value: [m] of the first look; W_enc: [d_sae, d_in], latent
        by latent. Returns [m]."""
        own = self.unit[entries.latent]
        for look in self:
            some = where_true(value / own > look.cut)  # all others have none, and no gradient
            estimate = look.estimate(value[some], own[some])
            left = rest - Decode.apply(estimate, entries.select(some), W_dec)
            value = value + look.alpha * Dots.apply(left, W_enc, entries)
        return value

    @torch.no_grad()
    def again(self, h: Tensor, rest: Tensor, W_enc: Tensor, W_dec: Tensor) -> Tensor:
        """As `dense`, by products over candidates alone; not recorded for gradients. W_enc: [d_sae, d_in]."""
        places = where_above(h, self.level)
        entries = Entries(places, h.shape)
        found = self.listed(h.flatten()[places], entries, rest, W_enc, W_dec)
        return h.flatten().index_copy(0, places, found).view_as(h)

    def project_(self) -> None:
        """Keep shapes that are trained where they are safe."""
        for look in self:
            keep_in_bounds_(look.shape)

    def parameters_by_kind(self) -> dict[str, list[Tensor]]:
        """As `Gate.parameter_groups`: steps α with the thresholds, shapes with the shape."""
        return {"threshold": [look.alpha for look in self], "shape": [look.shape for look in self]}

    def tensors(self) -> dict[str, Tensor]:
        """What is stored beside the weights."""
        return {UNIT: self.unit}

    def to_config(self) -> dict[str, Any]:
        """As cfg.json has the rest."""
        return {
            "floor": float(self.floor),
            "each": [
                {
                    "coefficients": look.coefficients.to_dict(),
                    "right_slope": float(look.shape.detach()[LINEAR - 1]),
                    "alpha": float(look.alpha.detach()),
                    "cut": float(look.cut),
                }
                for look in self
            ],
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], unit: Tensor) -> Looks:
        """unit: [d_sae]. Raises FitError if the coefficients are not partial fractions, ValueError, TypeError or
        KeyError if anything else is missing or wrong."""
        each = [
            Look(
                PartialFractions.from_dict(one["coefficients"]),
                float(one["alpha"]),
                right_slope=float(one["right_slope"]),
                cut=float(one["cut"]),
            )
            for one in config["each"]
        ]
        looks = cls(each, float(config["floor"]), unit)
        finite = all(bool(number.isfinite().all()) for number in looks.state_dict().values())
        if not each or not finite or not bool((unit > 0).all()):
            raise ValueError("a look is missing, not finite or without a unit")
        return looks
