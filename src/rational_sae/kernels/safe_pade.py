"""Value and gradients of the centred safe-Padé form in plain torch, on any device.

r(t) = P(u)/(1 + |S(u)|), P = Σ_i a_i uⁱ, S = Σ_{j≥1} b_j uʲ, u = t − c, on [−1, 1]; continued outside as in
`reference.py`. Coefficients travel as one vector: [slope of the right continuation, a_0…a_p, b_1…b_q].

With w = g/Q, v = −g·r·sign(S)/Q and Q = 1 + |S|, the gradient of Σ g·r with respect to a_i is Σ w·uⁱ, to b_j Σ v·uʲ.
Powers are recomputed for the backward pass, chunk by chunk, and never kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rational_sae.kernels.reference import chunk_size


def apply_safe_pade(t: Tensor, shape: Tensor, centre: Tensor, degree: int) -> Tensor:
    """r(t), differentiable once in t and shape; nothing but the arguments is kept for the backward pass.

    t: any shape, float32 or float64; shape: [2 + p + q]; centre: scalar; degree: p. Returns the shape of t.
    """
    return _SafePade.apply(t, shape, centre, degree)


class _SafePade(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, t: Tensor, shape: Tensor, centre: Tensor, degree: int) -> Tensor:
        ctx.save_for_backward(t, shape, centre)
        ctx.degree = degree
        flat = t.reshape(-1)
        return torch.cat([_value(part, shape, centre, degree) for part in flat.split(chunk_size(t))]).view(t.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        t, shape, centre = ctx.saved_tensors
        size = chunk_size(t)
        total = torch.zeros(shape.shape, dtype=torch.float64, device=t.device)
        slopes = []
        for part, g in zip(t.reshape(-1).split(size), grads[0].reshape(-1).split(size), strict=True):
            slope, sums = _slope_and_sums(part, g, shape, centre, ctx.degree)
            slopes.append(slope)
            total += sums
        return grads[0] * torch.cat(slopes).view(t.shape), total.to(shape.dtype), None, None


def _value(t: Tensor, shape: Tensor, centre: Tensor, degree: int) -> Tensor:
    numerator, denominator = shape[1 : degree + 2], shape[degree + 2 :]
    u = t.clamp(-1.0, 1.0) - centre
    inner = _horner(u, denominator) * u
    return _horner(u, numerator) / (1 + inner.abs()) + shape[0] * (t - 1.0).clamp_min(0.0)


def _slope_and_sums(t: Tensor, g: Tensor, shape: Tensor, centre: Tensor, degree: int) -> tuple[Tensor, Tensor]:
    """r′(t): [n] of one chunk, and Σ g ∂r/∂shape: [2 + p + q] float64."""
    a, b = shape[1 : degree + 2], shape[degree + 2 :]
    u = t.clamp(-1.0, 1.0) - centre
    inner = _horner(u, b) * u
    q = 1 + inner.abs()
    r, sign = _horner(u, a) / q, inner.sign()
    by_a, by_b = (one * torch.arange(len(one), device=t.device) for one in (a, torch.cat([b.new_zeros(1), b])))
    slope = (_horner(u, by_a[1:]) - r * sign * _horner(u, by_b[1:])) / q
    slope = torch.where(t > 1.0, shape[0], torch.where(t < -1.0, 0.0, slope))
    w = g / q
    sums = [(g * (t - 1.0).clamp_min(0.0)).sum(dtype=torch.float64)]
    sums += _power_sums(w, u, len(a))
    sums += _power_sums(-w * r * sign * u, u, len(b))
    return slope, torch.stack(sums)


def _horner(u: Tensor, coefficients: Tensor) -> Tensor:
    """Σ_i c_i uⁱ: [n]. coefficients: [k], ascending."""
    total = torch.zeros_like(u)
    for one in coefficients.flip(0):
        total = total * u + one
    return total


def _power_sums(w: Tensor, u: Tensor, count: int) -> list[Tensor]:
    """Σ w·uⁱ for i < count, each summed in float64."""
    sums = []
    for _ in range(count):
        sums.append(w.sum(dtype=torch.float64))
        w = w * u
    return sums
