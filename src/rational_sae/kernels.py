"""Value, slope and coefficient sums of the trainable rational function, on any list of points.

r(t) = e₀ + e₁t + Σ_k (α_k (t − x_k) + β_k y_k) / ((t − x_k)² + y_k²), y_k = exp(η_k), on [−1, 1];
r(−1) to the left of it; the straight line r(1) + slope·(t − 1) to the right of it. Coefficients travel as one float32
vector, so that a gate has one shape parameter: [e₀, e₁, slope, α_1…α_K, β_1…β_K, x_1…x_K, η_1…η_K].
"""

from __future__ import annotations

import torch
from torch import Tensor

LINEAR = 3
"""Leading coefficients before the pole terms: e₀, e₁ and the slope of the right continuation."""

CHUNK = 1 << 19
"""Points evaluated at once: bounds the [K, points] temporaries to a few tens of MB."""


def rational(t: Tensor, shape: Tensor) -> tuple[Tensor, Tensor]:
    """r(t) and r′(t).

    t: [n] float32; shape: [LINEAR + 4K] float32. Returns two [n] float32 tensors.
    """
    parts = [_value_and_slope(part, shape) for part in t.split(CHUNK)]
    return torch.cat([r for r, _ in parts]), torch.cat([d for _, d in parts])


def shape_gradient(t: Tensor, g: Tensor, shape: Tensor) -> Tensor:
    """Σ_i g_i ∂r(t_i)/∂shape: [LINEAR + 4K]. Sums of up to millions of terms, so accumulated in float64."""
    total = torch.zeros(shape.shape, dtype=torch.float64, device=t.device)
    for part, weight in zip(t.split(CHUNK), g.split(CHUNK), strict=True):
        total += _shape_gradient(part, weight, shape)
    return total.to(shape.dtype)


def linear_basis(t: Tensor, shape: Tensor) -> Tensor:
    """What each coefficient that r is linear in multiplies: [LINEAR + 2K, n] for [e₀, e₁, slope, α…, β…].

    t: [n]; shape: [LINEAR + 4K], of which only the poles are used.
    """
    inside = t.clamp(-1.0, 1.0)
    rows = [torch.ones_like(t)[None], inside[None], (t - 1.0).clamp_min(0.0)[None]]
    if shape.numel() > LINEAR:
        _, _, x, y = _poles(shape)
        d = inside - x
        w = (d * d + y * y).reciprocal()
        rows += [d * w, y * w]
    return torch.cat(rows)


def _poles(shape: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    alpha, beta, x, eta = shape[LINEAR:].view(4, -1, 1)
    return alpha, beta, x, eta.exp()


def _value_and_slope(t: Tensor, shape: Tensor) -> tuple[Tensor, Tensor]:
    e0, e1, slope = shape[:LINEAR]
    inside = t.clamp(-1.0, 1.0)
    value, derivative = e0 + e1 * inside, e1
    if shape.numel() > LINEAR:
        alpha, beta, x, y = _poles(shape)
        d = inside - x
        w = (d * d + y * y).reciprocal()
        f = (alpha * d + beta * y) * w
        value = value + f.sum(0)
        derivative = derivative + ((alpha - 2 * d * f) * w).sum(0)
    right = t > 1.0
    value = torch.where(right, value + slope * (t - 1.0), value)
    derivative = torch.where(right, slope, torch.where(t < -1.0, torch.zeros_like(t), derivative))
    return value, derivative


def _shape_gradient(t: Tensor, g: Tensor, shape: Tensor) -> Tensor:
    inside = t.clamp(-1.0, 1.0)
    excess = (t - 1.0).clamp_min(0.0)
    linear = torch.stack([g.sum(dtype=torch.float64), _dot(g, inside), _dot(g, excess)])
    if shape.numel() == LINEAR:
        return linear
    alpha, beta, x, y = _poles(shape)
    d = inside - x
    w = (d * d + y * y).reciprocal()
    gw = g * w
    n = alpha * d + beta * y
    gnw = gw * n * w
    by_alpha = _dot(gw, d)
    by_beta = gw.sum(1, dtype=torch.float64) * y[:, 0]
    by_x = 2 * _dot(gnw, d) - gw.sum(1, dtype=torch.float64) * alpha[:, 0]
    by_eta = by_beta * beta[:, 0] - 2 * gnw.sum(1, dtype=torch.float64) * (y * y)[:, 0]
    return torch.cat([linear, by_alpha, by_beta, by_x, by_eta])


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1, dtype=torch.float64)
