"""The paper's gate: rational everywhere, cut nowhere."""

from __future__ import annotations

import torch
from torch import Tensor

from rational_sae.errors import TrainingError
from rational_sae.gates.rational import RationalGate
from rational_sae.gates.transition import Transition
from rational_sae.rational import PartialFractions

SMOOTH_EPSILON = 1e-2
"""The smooth gate is never exactly 0: `l0_eps` counts |z| > SMOOTH_EPSILON · s_j."""


class SmoothGate(RationalGate):
    """Codes are nowhere 0. While something is measured at another L0, those with |z| ≤ cut·s_j are dropped."""

    mode = "smooth"
    exact_zeros = False
    lists_entries = False
    cut: Tensor
    """0 but while something is measured at another L0."""

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
        super().__init__(shape, scale, threshold, gain=gain, right_slope=right_slope, transition=transition)
        self.register_buffer("cut", torch.zeros((), device=scale.device))

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        scale = self.scale
        z = self.value(h.float() / scale) * scale * self.log_gain.exp()
        size = z.detach().abs()
        if float(self.cut) == 0:
            return z, (size > SMOOTH_EPSILON * scale).sum() / max(1, len(h))
        kept = size > self.cut * scale
        return torch.where(kept, z, 0.0), kept.sum() / max(1, len(h))

    def places(self, h: Tensor) -> Tensor:
        raise NotImplementedError("a smooth gate has no exact zeros")

    def margin(self, h: Tensor) -> Tensor:
        return self.value(h.float() / self.scale).abs() * self.log_gain.exp() - self.cut

    def shift_(self, amount: float) -> None:
        with torch.no_grad():
            self.cut += amount

    def settle_(self) -> None:
        self.cut.zero_()

    def above_epsilon(self, z: Tensor) -> Tensor:
        return z.abs() > SMOOTH_EPSILON * self.scale

    def on_line(self, t: Tensor, threshold: Tensor) -> Tensor:
        return self.value(t)

    def check_safe(self) -> None:
        super().check_safe()
        if float(self.cut) != 0:
            raise TrainingError("the smooth gate is cut for a measurement, so the SAE was not saved", "end that first")

    def support_in_words(self) -> str:
        return "nowhere cut"
