"""The default gate: rational where h_j > τ_j, exactly 0 elsewhere."""

from __future__ import annotations

import torch
from torch import Tensor

from rational_sae.errors import TrainingError
from rational_sae.gates.hard_codes import HardCodes, level
from rational_sae.gates.rational import RationalGate
from rational_sae.kernels import LINEAR, rational_value

POSITIVE_FLOOR = 1e-4
"""A rational r is at least this on the support, so that an active latent never reads 0 or negative.
Inactive in every fit."""

SUPPORT_POINTS = 1 << 14
"""Points on which r > 0 is checked when an SAE is finished and saved."""


class HardGate(RationalGate):
    """The support is set by the pre-activation and its own threshold, so shape and scale never change L0."""

    mode = "hard"
    has_threshold = True

    def level(self) -> Tensor | None:
        return level(self.threshold, self.transition)

    def codes(self, value: Tensor, latent: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
        code, l0 = HardCodes.apply(
            value, latent, self.shape, self.scale, self.threshold, self.transition, POSITIVE_FLOOR, tokens
        )
        return code * self.log_gain.exp(), l0

    def margin(self, h: Tensor) -> Tensor:
        return (h.float() - self.threshold) / self.scale

    def shift_(self, amount: float) -> None:
        with torch.no_grad():
            self.threshold += amount * self.scale

    def parameter_groups(self) -> dict[str, list[Tensor]]:
        return {"threshold": [self.threshold, self.log_scale], "shape": [self.shape, self.log_gain]}

    @torch.no_grad()
    def project_(self, points: int = 256) -> None:
        """Keep r > 0 on the support, too, seen on so many points. Under a shape that is not trained thresholds alone
        move.

        Where r is low left of the typical threshold, the thresholds that have strayed there are raised to where r is
        above half of t; a shape lifted for the sake of one latent would add to the codes of all.
        """
        super().project_(points)
        if not bool((self.threshold / self.scale).isfinite().all()):
            return  # far too high a rate: the next loss is not finite either, which training reports
        trained = self.shape.requires_grad
        t, r = self._on_support(points)
        safe = r >= (t / 2).clamp_min(POSITIVE_FLOOR)  # right of a jump's middle
        median = float((self.threshold / self.scale).median())
        typical = min(median, float(t.max())) if trained else float(t.max())
        astray = t[~safe & (t < typical)]
        if len(astray):
            edge = t[safe & (t > astray.max())]
            lowest = float(edge.min()) if len(edge) else typical
            self.threshold.copy_(torch.maximum(self.threshold, lowest * self.scale))
        if trained:
            self.shape[0] += max(0.0, POSITIVE_FLOOR - float(r[t >= typical].min()))

    @torch.no_grad()
    def lowest_on_support(self, points: int = SUPPORT_POINTS) -> tuple[float, float]:
        """(t, r(t)) where r is smallest on the support: from the lowest τ_j/s_j (excluded) to 1 at least.

        Looks at evenly spaced points, and at more around each pole.
        """
        t, r = self._on_support(points)
        worst = int(r.argmin())
        return float(t[worst]), float(r[worst])

    def _on_support(self, points: int) -> tuple[Tensor, Tensor]:
        """t and r(t), float64 on the CPU, where the gate can be active; see `lowest_on_support`."""
        start = float((self.threshold / self.scale).min())
        shape = self.shape.cpu().double()
        end = max(1.0, start + 1.0)
        even = torch.linspace(start, end, points, dtype=torch.float64)
        _, _, x, eta = shape[LINEAR:].view(4, -1)
        near = torch.linspace(-4, 4, 129, dtype=torch.float64)
        around = (x[:, None] + eta.exp()[:, None] * near).flatten().clamp_max(end)
        t = torch.cat([even[1:], around[around > start]])
        return t, rational_value(t, shape)

    @torch.no_grad()
    def check_safe(self) -> None:
        """Refuse a gate whose r is not positive on all of its support, too."""
        super().check_safe()
        if self.right_slope < 0:
            raise TrainingError("the gate falls right of its interval, so the SAE was not saved", "train it again")
        t, r = self.lowest_on_support()
        if not r > 0:
            raise TrainingError(
                f"the gate is {r:.3g} at t = {t:.4g} of its support, so the SAE was not saved",
                "train with a lower rate or higher thresholds",
            )

    def thresholded(self) -> HardGate:
        return self

    def support_in_words(self) -> str:
        return "where h_j > τ_j, 0 elsewhere"
