"""The smooth gate in the paper's own form, safe-Padé."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from rational_sae.gates.base import Numbers
from rational_sae.gates.rational import RationalGate
from rational_sae.gates.smooth import SmoothGate
from rational_sae.gates.transition import Transition
from rational_sae.kernels import apply_safe_pade
from rational_sae.rational import PartialFractions, SafePade, from_safe_pade, to_safe_pade

_NOTHING = PartialFractions(0.0, 0.0, [], [], [], [])  # pyright: ignore[reportArgumentType]


class SafePadeGate(SmoothGate):
    """z = gain·s_j·r(h/s_j) with r = P/(1 + |S|) trained as coefficients of t − c, and nothing cut: the paper's gate.

    `shape` is [right slope, a_0…a_p, b_1…b_q] (`kernels/safe_pade.py`); the centre c stays.
    """

    centre: Tensor

    def __init__(
        self,
        shape: SafePade,
        scale: Tensor,
        threshold: Tensor,
        *,
        gain: float = 1.0,
        right_slope: float = 1.0,
        transition: Transition | None = None,
    ) -> None:
        """shape: r on [−1, 1]; scale, threshold: [d_sae], of which the second only says where the teacher's lay;
        gain: C_out / C_in."""
        super().__init__(_NOTHING, scale, threshold, gain=gain, transition=transition)
        self.degree = shape.type[0]
        device = scale.device
        self.shape = nn.Parameter(torch.tensor([right_slope, *shape.a, *shape.b], dtype=torch.float32, device=device))
        self.register_buffer("centre", torch.tensor(shape.c, dtype=torch.float32, device=device))

    @classmethod
    def of(cls, gate: RationalGate) -> Self:
        """The same function as a smooth gate in partial fractions. Raises FitError where float64 cannot convert it."""
        return cls(
            to_safe_pade(gate.partial_fractions),
            gate.scale.detach(),
            gate.threshold.detach(),
            gain=float(gate.log_gain.detach().exp()),
            right_slope=gate.right_slope,
            transition=gate.transition,
        )

    @classmethod
    def reads(cls, numbers: Mapping[str, Any]) -> bool:
        coefficients = numbers.get("coefficients")
        return super().reads(numbers) and isinstance(coefficients, dict) and coefficients.get("form") == SafePade.form

    @classmethod
    def from_config(cls, config: Numbers, tensors: Mapping[str, Tensor]) -> Self:
        return cls(cls.stored_shape(config.numbers["coefficients"]), **cls.common_numbers(config, tensors))

    @classmethod
    def stored_shape(cls, coefficients: Mapping[str, Any]) -> SafePade:
        return SafePade.from_dict(dict(coefficients))

    @property
    def coefficients(self) -> SafePade:
        numbers = self.shape.detach().double().cpu().numpy()
        return SafePade(numbers[1 : self.degree + 2], numbers[self.degree + 2 :], float(self.centre))

    @property
    def partial_fractions(self) -> PartialFractions:
        """The same r in the other form. Raises FitError if |S| has a kink, which no rational function has."""
        return from_safe_pade(self.coefficients)

    @property
    def right_slope(self) -> float:
        return float(self.shape.detach()[0])

    @property
    def denominators(self) -> Tensor:
        """1: no denominator 1 + |S| is lower."""
        return torch.ones(1, device=self.shape.device)

    def value(self, t: Tensor) -> Tensor:
        return apply_safe_pade(t, self.shape, self.centre, self.degree)

    @torch.no_grad()
    def project_(self, points: int = 0) -> None:
        """Keep the right slope from falling; nothing else can go wrong, whatever the coefficients are."""
        if self.shape.requires_grad:
            self.shape[0].clamp_(min=0.0)
