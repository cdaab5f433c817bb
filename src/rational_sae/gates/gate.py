"""Gates: from pre-activations h to codes z, elementwise or per token, with exact zeros and their gradients.

Gate
├── ReLUGate          z = max(h, 0)
├── TopKGate          the k largest h of a token, then ReLU
├── ThresholdGate     JumpReLU: z = h where h > τ_j
└── RationalGate      z = φ_j(h), φ_j(h) = gain·s_j·r(h/s_j), on the support of its mode: hard, smooth or topk;
    │                 a hard one may have a scale for each token: z = c(x)·φ_j(h/c(x))
    └── SafePadeGate  the smooth one in the paper's form (`safe_pade.py`)

Everything inside a gate is float32, whatever the autocast. A forward also returns the L0 of the batch, whose backward
is the threshold's: it moves thresholds and pre-activations, never the shape.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from rational_sae.gates.token_scale import TokenScale
from rational_sae.gates.transition import Transition, rectangle
from rational_sae.kernels import LINEAR, apply_rational, rational_value, value_slope_sums
from rational_sae.kernels.selection import where_above, where_largest, where_true
from rational_sae.rational import PartialFractions, SafePade

Mode = Literal["hard", "smooth", "topk"]

POSITIVE_FLOOR = 1e-4
"""A rational r is at least this on the support, so that an active latent never reads 0 or negative.
Inactive in every fit."""

SMOOTH_EPSILON = 1e-2
"""The smooth gate is never exactly 0: `l0_eps` counts |z| > SMOOTH_EPSILON · s_j."""

SUPPORT_POINTS = 1 << 14
"""Points on which r > 0 is checked when an SAE is finished and saved."""

LOWEST_JUMP = 0.02
"""In t; designs with a jump have it at 0.05 or above, the others have thresholds at 0."""

NARROWEST_POLE = -6.0
"""Smallest η: a pole closer than e⁻⁶ to the real line is a spike narrower than the data resolve."""


class Gate(nn.Module):
    """What every gate offers. h: [n, d_sae]."""

    architecture: str
    """What SAELens calls an SAE with this gate."""

    family: str
    """What people call it."""

    elementwise: bool = True
    """Whether a latent's code depends on its own pre-activation alone."""

    exact_zeros: bool = True
    """Whether inactive latents read exactly 0, so that `places` can list the others."""

    has_token_scale: bool = False
    """Whether pre-activations are first divided by a scale of their token."""

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """z: [n, d_sae] float32 and l0: scalar, the mean number of active latents."""
        h, c = self.in_token_units(h.float())
        places = self.places(h)
        code, l0 = self.codes(h.flatten().index_select(0, places), places % h.shape[-1], len(h))
        z = h.new_zeros(h.numel()).scatter_(0, places, code).view_as(h)
        return z if c is None else z * c, l0

    def token_scale(self, h: Tensor) -> Tensor | None:
        """c(x): [n, 1] of pre-activations h: [n, d_sae]; None where the gate has none."""
        return None

    def in_token_units(self, h: Tensor) -> tuple[Tensor, Tensor | None]:
        """h / c(x), which `places`, `codes` and `margin` take, and c(x), by which codes are multiplied afterwards."""
        c = self.token_scale(h)
        return (h, None) if c is None else (h / c, c)

    def level(self) -> Tensor | None:
        """[d_sae] or [], in token units: `places` lists the entries above it; None where a token's others matter."""
        return None

    def places(self, h: Tensor) -> Tensor:
        """[m] int64, ascending flat indices into h of the entries that can have a code, or a gradient if it is
        recorded; all others are 0. h: [n, d_sae] float32."""
        level = self.level()
        if level is None:
            raise NotImplementedError
        return where_above(h, level)

    def codes(self, value: Tensor, latent: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
        """Codes of listed entries and the mean number of active latents over so many tokens.

        value: [m] float32 pre-activations; latent: [m] int64. Returns code: [m] float32 and l0: scalar.
        """
        raise NotImplementedError

    def margin(self, h: Tensor) -> Tensor:
        """How far each entry is above its threshold, in the units of `shift_`: active where margin > 0. h: [n, d_sae]
        in token units."""
        raise NotImplementedError

    def shift_(self, amount: float) -> None:
        """Raise every threshold by the same amount, each in its own unit; where nothing can move, only 0 is allowed."""
        if amount:
            raise NotImplementedError

    def rescale_(self, factor: Tensor) -> None:
        """Follow a change of units h → h·factor, z → z·factor. factor: [d_sae] or [1], positive."""

    def _apply(self, fn: Any, recurse: bool = True) -> Gate:
        """Move devices, the transition too, but stay float32: `sae.to(torch.bfloat16)` must not round a gate."""
        kept = [tensor.data for tensor in self._numbers()]
        super()._apply(fn, recurse)
        for before, after in zip(kept, self._numbers(), strict=True):
            if after.dtype != before.dtype:
                after.data = before.to(after.device)
        if isinstance(self, ThresholdGate | RationalGate):
            self.transition = self.transition.to(self.threshold.device)
        return self

    def _numbers(self) -> list[Tensor]:
        """The gate's own floating-point tensors."""
        own = [*self.parameters(recurse=False), *self.buffers(recurse=False)]
        return [tensor for tensor in own if tensor.is_floating_point()]


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
        return code, _l0(code, tokens)

    def margin(self, h: Tensor) -> Tensor:
        return h.float() - self.offset

    def shift_(self, amount: float) -> None:
        self.offset += amount


class TopKGate(Gate):
    """The k largest pre-activations of each token, then ReLU."""

    architecture = "topk"
    family = "topk"
    elementwise = False

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def places(self, h: Tensor) -> Tensor:
        return where_largest(h, self.k)

    def codes(self, value: Tensor, latent: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
        code = value.relu()
        return code, _l0(code, tokens)


class ThresholdGate(Gate):
    """JumpReLU: z = h where h > τ_j, exactly 0 elsewhere; τ_j ≥ 0."""

    architecture = "jumprelu"
    family = "jumprelu"
    identity: Tensor

    def __init__(self, threshold: Tensor, transition: Transition | None = None) -> None:
        """threshold: [d_sae]. transition: how τ gets its gradient; none is needed for inference."""
        super().__init__()
        self.threshold = nn.Parameter(threshold.float().clone())
        self.transition = transition or rectangle(torch.full_like(threshold, 0.1, dtype=torch.float32))
        self.register_buffer("identity", torch.tensor([0.0, 1.0, 1.0], device=threshold.device))

    def level(self) -> Tensor:
        return _level(self.threshold, self.transition)

    def codes(self, value: Tensor, latent: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
        scale = torch.ones_like(self.threshold)
        return _HardCodes.apply(value, latent, self.identity, scale, self.threshold, self.transition, 0.0, tokens)

    def margin(self, h: Tensor) -> Tensor:
        return (h.float() - self.threshold) / _unit(self.threshold)

    def shift_(self, amount: float) -> None:
        with torch.no_grad():
            self.threshold += amount * _unit(self.threshold)

    def rescale_(self, factor: Tensor) -> None:
        with torch.no_grad():
            self.threshold *= factor
        self.transition = self.transition.scaled(factor)


class RationalGate(Gate):
    """A trainable rational function on a support chosen by the pre-activation (docs/method.md)."""

    architecture = "rational"
    family = "rational"
    cut: Tensor
    """Of a smooth gate: codes with |z| ≤ cut·s_j are dropped. 0 but while something is measured at another L0."""

    def __init__(
        self,
        shape: PartialFractions,
        scale: Tensor,
        threshold: Tensor,
        *,
        mode: Mode = "hard",
        k: int | None = None,
        gain: float = 1.0,
        right_slope: float = 1.0,
        transition: Transition | None = None,
        token: TokenScale | None = None,
    ) -> None:
        """shape: r on [−1, 1]; scale, threshold: [d_sae], on the device of the gate; k: for mode `topk`; gain:
        C_out / C_in; token: for mode `hard`, c(x) in z_j = c·φ_j(h_j/c)."""
        super().__init__()
        if mode == "topk" and k is None:
            raise ValueError("mode 'topk' needs k")
        if mode != "hard" and token is not None:
            raise ValueError(f"mode {mode!r} has no token scale")
        self.mode: Mode = mode
        self.k = k
        self.token = token
        self.elementwise = mode != "topk"
        self.exact_zeros = mode != "smooth"
        device = scale.device
        self.shape = nn.Parameter(pack(shape, right_slope).to(device))
        self.log_scale = nn.Parameter(scale.float().log())
        self.log_gain = nn.Parameter(torch.tensor(float(gain), device=device).log())
        self.threshold = nn.Parameter(threshold.float().clone())
        self.transition = transition or rectangle(0.2 * scale.float())
        if mode == "smooth":
            self.register_buffer("cut", torch.zeros((), device=device))

    @property
    def has_token_scale(self) -> bool:  # type: ignore[override]
        return self.token is not None

    @property
    def scale(self) -> Tensor:
        """s_j: [d_sae]."""
        return self.log_scale.exp()

    @property
    def partial_fractions(self) -> PartialFractions:
        """The current r, on [−1, 1]."""
        e0, e1, _ = self.shape[:LINEAR].tolist()
        alpha, beta, x, eta = self.shape[LINEAR:].detach().double().cpu().view(4, -1).numpy()
        return PartialFractions(e0, e1, alpha, beta, x, eta)

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

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        if self.exact_zeros:
            return super().forward(h)
        scale = self.scale
        z = self.value(h.float() / scale) * scale * self.log_gain.exp()
        size = z.detach().abs()
        if float(self.cut) == 0:
            return z, (size > SMOOTH_EPSILON * scale).sum() / max(1, len(h))
        kept = size > self.cut * scale
        return torch.where(kept, z, 0.0), kept.sum() / max(1, len(h))

    def token_scale(self, h: Tensor) -> Tensor | None:
        return None if self.token is None else self.token.of(h.detach() / self.scale.detach())

    def level(self) -> Tensor | None:
        return _level(self.threshold, self.transition) if self.mode == "hard" else None

    def places(self, h: Tensor) -> Tensor:
        if self.mode == "topk" and self.k is not None:
            return where_largest(h, self.k)
        if not self.exact_zeros:
            raise NotImplementedError("a smooth gate has no exact zeros")
        return super().places(h)

    def codes(self, value: Tensor, latent: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
        gain = self.log_gain.exp()
        if self.mode == "hard":
            code, l0 = _HardCodes.apply(
                value, latent, self.shape, self.scale, self.threshold, self.transition, POSITIVE_FLOOR, tokens
            )
            return code * gain, l0
        scale = self.scale[latent]
        r = self.value(value / scale)
        code = torch.where(value > 0, r.clamp_min(POSITIVE_FLOOR) * scale * gain, 0.0)
        return code, _l0(code, tokens)

    def margin(self, h: Tensor) -> Tensor:
        if self.mode == "smooth":
            return self.value(h.float() / self.scale).abs() * self.log_gain.exp() - self.cut
        return (h.float() - self.threshold) / self.scale

    def shift_(self, amount: float) -> None:
        with torch.no_grad():
            if self.mode == "smooth":
                self.cut += amount
            else:
                self.threshold += amount * self.scale

    def rescale_(self, factor: Tensor) -> None:
        with torch.no_grad():
            self.log_scale += factor.log()
            self.threshold *= factor
        self.transition = self.transition.scaled(factor)

    @torch.no_grad()
    def project_(self, points: int = 256) -> None:
        """Keep the gate where it is safe: poles off the real line, a right slope that does not fall, and r > 0 on the
        support of a hard gate, seen on so many points. Under a shape that is not trained thresholds alone move.

        Where r is low left of the typical threshold, the thresholds that have strayed there are raised to where r is
        above half of t; a shape lifted for the sake of one latent would add to the codes of all.
        """
        trained = self.shape.requires_grad
        if trained:
            self.shape[-((self.shape.numel() - LINEAR) // 4) :].clamp_(min=NARROWEST_POLE)
            self.shape[LINEAR - 1].clamp_(min=0.0)
        if self.mode == "hard":
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
        """(t, r(t)) where r is smallest on a hard gate's support: from the lowest τ_j/s_j (excluded) to 1 at least.

        Looks at evenly spaced points, and at more around each pole.
        """
        t, r = self._on_support(points)
        worst = int(r.argmin())
        return float(t[worst]), float(r[worst])

    def _on_support(self, points: int) -> tuple[Tensor, Tensor]:
        """t and r(t), float64 on the CPU, where a hard gate can be active; see `lowest_on_support`."""
        start = float((self.threshold / self.scale).min())
        shape = self.shape.cpu().double()
        end = max(1.0, start + 1.0)
        even = torch.linspace(start, end, points, dtype=torch.float64)
        _, _, x, eta = shape[LINEAR:].view(4, -1)
        near = torch.linspace(-4, 4, 129, dtype=torch.float64)
        around = (x[:, None] + eta.exp()[:, None] * near).flatten().clamp_max(end)
        t = torch.cat([even[1:], around[around > start]])
        return t, rational_value(t, shape)


def pack(shape: PartialFractions, right_slope: float) -> Tensor:
    """The one coefficient vector that kernels.py works on: [LINEAR + 4K] float32."""
    poles = [*shape.alpha, *shape.beta, *shape.x, *shape.eta]
    return torch.tensor([shape.e0, shape.e1, right_slope, *poles], dtype=torch.float32)


def _level(threshold: Tensor, transition: Transition) -> Tensor:
    """The thresholds; while gradients are recorded, the lower edges of their bands."""
    if torch.is_grad_enabled() and threshold.requires_grad:
        return threshold.detach() - transition.half_width
    return threshold


def _l0(code: Tensor, tokens: int) -> Tensor:
    return (code != 0).sum() / max(1, tokens)


def _unit(threshold: Tensor) -> Tensor:
    """Thresholds move in proportion to themselves; one that is (nearly) 0 moves with the mean instead."""
    return threshold.detach().clamp_min(1e-3 * float(threshold.detach().mean()) + 1e-12)


class _HardCodes(torch.autograd.Function):
    """s_j·r(h/s_j) where h > τ_j, exactly 0 elsewhere, on listed entries.

    Backward. Active entries: exact, with respect to h, s_j and the shape. Entries in the band of the transition, on
    both sides of τ_j: the jump at the threshold times the kernel, for τ_j and (if the transition says so) h.
    All others: nothing. The L0 output passes its gradient through the kernel alone.
    """

    @staticmethod
    def forward(
        ctx: Any,
        value: Tensor,
        latent: Tensor,
        shape: Tensor,
        scale: Tensor,
        threshold: Tensor,
        transition: Transition,
        floor: float,
        tokens: int,
    ) -> tuple[Tensor, Tensor]:
        active = where_true(value > threshold[latent])
        v, s = value[active], scale[latent[active]]
        r = rational_value(v / s, shape)
        ctx.save_for_backward(value, latent, active, r >= floor, shape, scale, threshold)
        ctx.transition, ctx.tokens = transition, tokens
        code = torch.zeros_like(value).index_copy_(0, active, s * r.clamp_min(floor))
        return code, code.new_tensor(len(active) / max(1, tokens))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        value, latent, active, exact, shape, scale, threshold = ctx.saved_tensors
        own = latent[active]
        g, s = torch.where(exact, grads[0][active], 0.0), scale[own]
        t = value[active] / s
        r, slope, by_shape = value_slope_sums(t, g * s, shape)
        jump = (scale * rational_value(threshold / scale, shape).clamp_min(0.0))[latent]
        kernel = ctx.transition.kernel(value, threshold[latent], latent)
        step = (grads[0] * jump + grads[1] / max(1, ctx.tokens)) * kernel
        by_value = step.clone() if ctx.transition.to_input else torch.zeros_like(value)
        by_value.index_add_(0, active, g * slope)
        by_threshold = torch.zeros_like(threshold).index_add_(0, latent, -step)
        by_scale = None
        if ctx.needs_input_grad[3]:
            by_scale = torch.zeros_like(scale).index_add_(0, own, g * (r - t * slope))
        return by_value, None, by_shape if ctx.needs_input_grad[2] else None, by_scale, by_threshold, None, None, None
