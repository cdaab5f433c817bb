"""The trainable rational gate: z_j = gain·s_j·r(h_j/s_j) on a support that each kind chooses in its own way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from rational_sae.errors import FitError, TrainingError
from rational_sae.gates.base import Gate, Numbers, spread
from rational_sae.gates.transition import Transition, rectangle
from rational_sae.kernels import LINEAR, apply_rational
from rational_sae.rational import PartialFractions, SafePade

NARROWEST_POLE = -6.0
"""Smallest η: a pole closer than e⁻⁶ to the real line is a spike narrower than the data resolve."""

LOWEST_JUMP = 0.02
"""In t; designs with a jump have it at 0.05 or above, the others have thresholds at 0."""

WIDEST, SLACK = 1e6, 1.01
"""How far scales, thresholds in units of their scale, poles and the gain may go from 1 (heuristic: float32 resolves
1e-7; fits and trained gates stay within 1e3), and room for rounding at a bound that training enforces."""


_ZERO = np.zeros(1)
LINE = PartialFractions(0.0, 1.0, alpha=_ZERO, beta=_ZERO, x=_ZERO, eta=_ZERO)
"""r(t) = t, with a pole that does nothing."""


class RationalGate(Gate):
    """What the kinds of rational gate share: shape, scales, gain and thresholds, and how they are stored."""

    architecture = "rational"
    family = "rational"

    mode: ClassVar[str]
    """The kind's name, in cfg.json and for `--gate`."""

    transition: Transition

    def __init__(
        self,
        shape: PartialFractions,
        scale: Tensor,
        threshold: Tensor,
        *,
        gain: float = 1.0,
        right_slope: float = 1.0,
        transition: Transition | None = None,
    ) -> None:
        """shape: r on [−1, 1]; scale, threshold: [d_sae], on the device of the gate; gain: C_out / C_in."""
        super().__init__()
        device = scale.device
        self.shape = nn.Parameter(pack(shape, right_slope).to(device))
        self.log_scale = nn.Parameter(scale.float().log())
        self.log_gain = nn.Parameter(torch.tensor(float(gain), device=device).log())
        self.threshold = nn.Parameter(threshold.float().clone())
        self.transition = transition or rectangle(0.2 * scale.float())

    @classmethod
    def designed(
        cls, shape: PartialFractions, scale: Tensor, threshold: Tensor, *, transition: Transition, k: int | None
    ) -> Self:
        """The gate that a fit gives. k: the teacher's quota, if it has one."""
        return cls(shape, scale, threshold, transition=transition)

    def with_line(self) -> Self:
        """The same gate with r(t) = t, which no training changes: what the machinery gives without the rational."""
        same = self.designed(LINE, self.scale.detach(), self.threshold.detach(), transition=self.transition, k=self.k)
        for fixed in (same.shape, same.log_gain, same.log_scale):
            fixed.requires_grad_(False)
        return same

    @property
    def scale(self) -> Tensor:
        """s_j: [d_sae]."""
        return self.log_scale.exp()

    @property
    def partial_fractions(self) -> PartialFractions:
        """The current r, on [−1, 1]."""
        return unpack(self.shape)

    @property
    def coefficients(self) -> PartialFractions | SafePade:
        """The current r on [−1, 1], in the form that is trained and stored."""
        return self.partial_fractions

    @property
    def right_slope(self) -> float:
        """Slope of the continuation right of t = 1."""
        return float(self.shape.detach()[LINEAR - 1])

    @property
    def denominators(self) -> Tensor:
        """What keeps each denominator away from 0: the poles' y, [K]."""
        return self.shape[len(self.shape) - (len(self.shape) - LINEAR) // 4 :].exp()

    def value(self, t: Tensor) -> Tensor:
        """r(t), differentiable in t and in the shape. t: any shape, on the gate's device."""
        return apply_rational(t, self.shape)

    def on_line(self, t: Tensor, threshold: Tensor) -> Tensor:
        """r(t) as a picture shows it: 0 up to the threshold, where the kind cuts. threshold: []."""
        return torch.where(t > threshold, self.value(t), 0.0)

    def rescale_(self, factor: Tensor) -> None:
        with torch.no_grad():
            self.log_scale += factor.log()
            self.threshold *= factor
        self.transition = self.transition.scaled(factor)  # pyright: ignore[reportIncompatibleVariableOverride]

    def scales(self) -> Tensor:
        return self.scale.detach()

    def set_scales_(self, latents: Tensor, scales: Tensor) -> None:
        with torch.no_grad():
            self.log_scale[latents] = scales.log()

    def like_living(self, living: Tensor, alive: Tensor, threshold: Tensor) -> Tensor:
        """In proportion to the threshold beside a jump, because the shape has it just below; the same for all where
        thresholds lie near t = 0."""
        if float((self.threshold[alive] / self.scale[alive]).median()) <= LOWEST_JUMP:
            return living.median().expand_as(threshold)
        return super().like_living(living, alive, threshold)

    def parameter_groups(self) -> dict[str, list[Tensor]]:
        return {"threshold": [self.log_scale], "shape": [self.shape, self.log_gain]}

    @torch.no_grad()
    def project_(self, points: int = 256) -> None:
        """Keep poles off the real line and the right slope from falling, if the shape is trained."""
        keep_in_bounds_(self.shape)

    def out_of_range(self, h: Tensor) -> Tensor:
        return h > self.scale

    @torch.no_grad()
    def check_safe(self) -> None:
        """Refuse a gate that would give NaN, or has left the range that float32 resolves."""
        numbers = [self.shape, self.scale, self.threshold, self.log_gain.exp()]
        if not all(bool(part.isfinite().all()) for part in numbers) or not (self.scale > 0).all():
            raise TrainingError("the gate is not finite, so the SAE was not saved", "train with a lower rate")
        ranges = {
            "a denominator": (self.denominators, math.exp(NARROWEST_POLE) / SLACK, WIDEST),
            "a scale": (self.scale / self.scale.median(), 1 / WIDEST, WIDEST),
            "a threshold": ((self.threshold / self.scale).abs(), 0.0, WIDEST),
            "the gain": (self.log_gain.exp(), 1 / WIDEST, WIDEST),
        }
        for what, (value, low, high) in ranges.items():
            wrong = value[(value < low) | (value > high)]
            if len(wrong):
                raise TrainingError(
                    f"{what} left the safe range ({float(wrong[0]):.3g}), so the SAE was not saved",
                    "train with a lower rate",
                )

    def title(self) -> str:
        p, q = self.coefficients.type
        return f"rational of type ({p}, {q}), {self.mode}"

    def formula(self) -> str:
        p, q = self.coefficients.type
        return f"z_j = c·s_j·r(h_j/s_j) {self.support_in_words()}; r = P/Q of type ({p}, {q})"

    def support_in_words(self) -> str:
        """Where z_j is not 0."""
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        return {
            "mode": self.mode,
            "k": self.k,
            "degrees": list(self.coefficients.type),
            "gain": float(self.log_gain.detach().exp()),
            "right_slope": self.right_slope,
            "scale": spread(self.scale.detach()),
            "threshold": spread(self.threshold.detach()),
        }

    @torch.no_grad()
    def to_config(self) -> dict[str, Any]:
        return {
            "coefficients": self.coefficients.to_dict(),
            "gain": float(self.log_gain.exp()),
            "right_slope": self.right_slope,
            "mode": self.mode,
            "k": self.k,
        }

    def tensors(self) -> dict[str, Tensor]:
        return {"threshold": self.threshold.detach(), "scale": self.scale.detach()}

    @classmethod
    def reads(cls, numbers: Mapping[str, Any]) -> bool:
        """Whether cfg.json speaks of this kind."""
        return numbers.get("mode", "hard") == cls.mode

    @classmethod
    def from_config(cls, config: Numbers, tensors: Mapping[str, Tensor]) -> Self:
        """The gate of `to_config` and `tensors`. Raises FitError if the coefficients are not this kind's, and what
        `config` raises if a number is wrong."""
        shape = cls.stored_shape(config.numbers["coefficients"])
        return cls(shape, **cls.common_numbers(config, tensors))

    @classmethod
    def stored_shape(cls, coefficients: Mapping[str, Any]) -> Any:
        """r in the form of this kind, for its constructor. Raises FitError if it is in another."""
        if coefficients.get("form") == SafePade.form:
            cause = f"coefficients are {SafePade.form!r}, which mode {cls.mode!r} does not take"
            raise FitError(cause, "use mode 'smooth'")
        return PartialFractions.from_dict(dict(coefficients))

    @staticmethod
    def common_numbers(config: Numbers, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """What every kind's constructor takes, from disk."""
        gain = config.number("gain", 1.0)
        if gain <= 0:
            raise config.wrong("gain", "a positive number")
        return {
            "scale": tensors["scale"],
            "threshold": tensors["threshold"],
            "gain": gain,
            "right_slope": config.number("right_slope", 1.0),
        }


def pack(shape: PartialFractions, right_slope: float) -> Tensor:
    """The one coefficient vector that the kernels work on: [LINEAR + 4K] float32."""
    poles = [*shape.alpha, *shape.beta, *shape.x, *shape.eta]
    return torch.tensor([shape.e0, shape.e1, right_slope, *poles], dtype=torch.float32)


@torch.no_grad()
def keep_in_bounds_(shape: Tensor) -> None:
    """Keep poles off the real line and the right slope from falling, if such a vector is trained."""
    if shape.requires_grad:
        shape[shape.numel() - (shape.numel() - LINEAR) // 4 :].clamp_(min=NARROWEST_POLE)
        shape[LINEAR - 1].clamp_(min=0.0)


def unpack(shape: Tensor) -> PartialFractions:
    """r on [−1, 1] of such a vector."""
    e0, e1, _ = shape[:LINEAR].tolist()
    alpha, beta, x, eta = shape[LINEAR:].detach().double().cpu().view(4, -1).numpy()
    return PartialFractions(e0, e1, alpha, beta, x, eta)
