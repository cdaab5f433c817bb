"""Value, slope and coefficient sums of the trainable rational function in plain torch, on any device.

r(t) = e₀ + e₁t + Σ_k (α_k (t − x_k) + β_k y_k) / ((t − x_k)² + y_k²), y_k = exp(η_k), on [−1, 1];
r(−1) to the left of it; the straight line r(1) + slope·(t − 1) to the right of it. Coefficients travel as one float32
vector, so that a gate has one shape parameter: [e₀, e₁, slope, α_1…α_K, β_1…β_K, x_1…x_K, η_1…η_K].

With d = t − x_k, w = 1/(d² + y_k²) and f = (α_k d + β_k y_k)w, the gradient of Σ_i g_i r(t_i) with respect to all
coefficients follows from seven kinds of sums: g, g·t and g·(t − 1)₊, and for each pole gwd, gw, gwfd and gwf.
"""

from __future__ import annotations

import torch
from torch import Tensor

LINEAR = 3
"""Leading coefficients before the pole terms: e₀, e₁ and the slope of the right continuation."""

CHUNK = 1 << 15
"""Points evaluated at once on a CPU: the [K, points] temporaries then stay in its second-level cache."""

CHUNK_ACCELERATOR = 1 << 22
"""The same elsewhere, where only the memory of the temporaries counts."""


def value(t: Tensor, shape: Tensor) -> Tensor:
    """r(t): [n]. t: [n], shape: [LINEAR + 4K], both float32 or both float64."""
    return torch.cat([value_of(part, shape) for part in t.split(chunk_size(t))])


def value_slope_sums(t: Tensor, g: Tensor, shape: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """r(t): [n], r′(t): [n] and Σ_i g_i ∂r(t_i)/∂shape: [LINEAR + 4K] float64. g: [n], of the dtype of t."""
    total = torch.zeros(shape.shape, dtype=torch.float64, device=t.device)
    values, slopes = [], []
    for part, weight in zip(t.split(chunk_size(t)), g.split(chunk_size(t)), strict=True):
        one, slope, terms = value_slope_terms(part, weight, shape)
        total += torch.cat([term.sum(-1, dtype=torch.float64).view(-1) for term in terms])
        values.append(one)
        slopes.append(slope)
    return torch.cat(values), torch.cat(slopes), from_sums(total, shape)


def from_sums(sums: Tensor, shape: Tensor) -> Tensor:
    """The gradient of the coefficients from the sums named above: [LINEAR + 4K] float64 each."""
    alpha, beta, _, eta = shape[LINEAR:].double().view(4, -1)
    y = eta.exp()
    gwd, gw, gwfd, gwf = sums[LINEAR:].view(4, -1)
    by_beta = gw * y
    return torch.cat([sums[:LINEAR], gwd, by_beta, 2 * gwfd - gw * alpha, by_beta * beta - 2 * gwf * y * y])


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


def chunk_size(t: Tensor) -> int:
    """Points to evaluate at once on the device of t."""
    return CHUNK if t.device.type == "cpu" else CHUNK_ACCELERATOR


def _poles(shape: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four [K, 1]: α, β, x and y."""
    alpha, beta, x, eta = shape[LINEAR:].view(4, -1, 1)
    return alpha, beta, x, eta.exp()


def _parts(t: Tensor, shape: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """t clamped to [−1, 1]: [n], and d, w, f of every pole there: [K, n] each."""
    alpha, beta, x, y = _poles(shape)
    inside = t.clamp(-1.0, 1.0)
    d = inside - x
    w = (d * d + y * y).reciprocal()
    return inside, d, w, (alpha * d + beta * y) * w


def _value(t: Tensor, shape: Tensor, inside: Tensor, f: Tensor) -> Tensor:
    e0, e1, slope = shape[:LINEAR]
    inner = e0 + e1 * inside + f.sum(0)
    return torch.where(t > 1.0, inner + slope * (t - 1.0), inner)


def _slope(t: Tensor, shape: Tensor, d: Tensor, w: Tensor, f: Tensor) -> Tensor:
    _, e1, slope = shape[:LINEAR]
    inner = e1 + ((_poles(shape)[0] - 2 * d * f) * w).sum(0)
    return torch.where(t > 1.0, slope, torch.where(t < -1.0, torch.zeros_like(t), inner))


def value_of(t: Tensor, shape: Tensor) -> Tensor:
    """r(t) of one chunk: [n]."""
    inside, _, _, f = _parts(t, shape)
    return _value(t, shape, inside, f)


def value_slope_terms(t: Tensor, g: Tensor, shape: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
    """r(t), r′(t) of one chunk, and the terms of the sums, in order: three [n], then four [K, n]."""
    inside, d, w, f = _parts(t, shape)
    gw = g * w
    gwf = gw * f
    terms = [g, g * inside, g * (t - 1.0).clamp_min(0.0), gw * d, gw, gwf * d, gwf]
    return _value(t, shape, inside, f), _slope(t, shape, d, w, f), terms
