"""The same as Triton kernels: every point is read once, coefficients stay in registers, no atomics.

The backward kernel is persistent: each program strides over the points and keeps its own sums, which it writes once,
to a row of [programs, sums]; a second pass adds the rows in float64. So two runs give the same bits. Adding up by
atomics is what makes other implementations slow: FlashKAT (arXiv 2505.13813) reports 123 times slower than a plain
network, and 86.5 times faster training without.

With TRITON_INTERPRET=1 in the environment before this module is imported, the kernels run on a CPU, for tests.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from rational_sae.kernels.reference import LINEAR, from_sums

PROGRAMS = 512
"""Of the backward kernel: some four for each multiprocessor of a large GPU. Fixed, so that every GPU adds in the
same order."""

TILE = 1024
"""Points times poles that one program holds at a time."""


def value(t: Tensor, shape: Tensor) -> Tensor:
    """As in reference.py."""
    r = torch.empty_like(t)
    if len(t):
        sizes: Any = _sizes(shape)
        with torch.cuda.device_of(t):  # a kernel runs on the current device, which may be another one than t's
            _value_kernel[(triton.cdiv(len(t), sizes[2]),)](t, shape, r, len(t), *sizes)
    return r


def value_slope_sums(t: Tensor, g: Tensor, shape: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As in reference.py."""
    r, slope = torch.empty_like(t), torch.empty_like(t)
    sizes: Any = _sizes(shape)
    programs = min(PROGRAMS, triton.cdiv(len(t), sizes[2]))
    partial = torch.zeros(programs, shape.numel(), dtype=t.dtype, device=t.device)
    if programs:
        with torch.cuda.device_of(t):
            _value_slope_sums_kernel[(programs,)](t, g, shape, r, slope, partial, len(t), *sizes)
    return r, slope, from_sums(partial.sum(0, dtype=torch.float64), shape)


def _sizes(shape: Tensor) -> tuple[int, int, int]:
    """Poles, poles padded to a power of two, and points in a tile."""
    poles = (shape.numel() - LINEAR) // 4
    padded = triton.next_power_of_2(max(1, poles))
    return poles, padded, max(16, TILE // padded)


@triton.jit
def _evaluate(t, shape, poles: tl.constexpr, padded: tl.constexpr):
    """r, r′, t clamped to [−1, 1], and d, w, f of every pole: [block] and [block, padded]. NaN stays NaN."""
    k = tl.arange(0, padded)
    live = k < poles
    alpha = tl.load(shape + 3 + k, mask=live, other=0.0)[None, :]
    beta = tl.load(shape + 3 + poles + k, mask=live, other=0.0)[None, :]
    x = tl.load(shape + 3 + 2 * poles + k, mask=live, other=0.0)[None, :]
    y = tl.exp(tl.load(shape + 3 + 3 * poles + k, mask=live, other=0.0))[None, :]
    e0, e1, right_slope = tl.load(shape), tl.load(shape + 1), tl.load(shape + 2)
    right, left = t > 1.0, t < -1.0
    inside = tl.where(right, 1.0, tl.where(left, -1.0, t))
    d = inside[:, None] - x
    w = 1.0 / (d * d + y * y)
    f = (alpha * d + beta * y) * w
    r = e0 + e1 * inside + tl.sum(f, 1)
    slope = e1 + tl.sum((alpha - 2.0 * d * f) * w, 1)
    r = tl.where(right, r + right_slope * (t - 1.0), r)
    slope = tl.where(right, right_slope, tl.where(left, 0.0, slope))
    return r, slope, inside, d, w, f


@triton.jit
def _value_kernel(t, shape, r, n, poles: tl.constexpr, padded: tl.constexpr, block: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    there = place < n
    found, _, _, _, _, _ = _evaluate(tl.load(t + place, mask=there, other=0.0), shape, poles, padded)
    tl.store(r + place, found, mask=there)


@triton.jit
def _value_slope_sums_kernel(
    t,
    g,
    shape,
    r,
    slope,
    partial,
    n,
    poles: tl.constexpr,
    padded: tl.constexpr,
    block: tl.constexpr,
):
    kind = t.dtype.element_ty
    sum_g = tl.zeros([block], kind)
    sum_gt = tl.zeros([block], kind)
    sum_right = tl.zeros([block], kind)
    sum_gwd = tl.zeros([block, padded], kind)
    sum_gw = tl.zeros([block, padded], kind)
    sum_gwfd = tl.zeros([block, padded], kind)
    sum_gwf = tl.zeros([block, padded], kind)
    for start in range(tl.program_id(0) * block, n, tl.num_programs(0) * block):
        place = start + tl.arange(0, block).to(tl.int64)
        there = place < n
        points = tl.load(t + place, mask=there, other=0.0)
        weight = tl.load(g + place, mask=there, other=0.0)
        found, derivative, inside, d, w, f = _evaluate(points, shape, poles, padded)
        tl.store(r + place, found, mask=there)
        tl.store(slope + place, derivative, mask=there)
        gw = weight[:, None] * w
        gwf = gw * f
        sum_g += weight
        sum_gt += weight * inside
        sum_right += weight * tl.where(points > 1.0, points - 1.0, 0.0)
        sum_gwd += gw * d
        sum_gw += gw
        sum_gwfd += gwf * d
        sum_gwf += gwf
    row = partial + tl.program_id(0) * (3 + 4 * poles)
    tl.store(row, tl.sum(sum_g, 0))
    tl.store(row + 1, tl.sum(sum_gt, 0))
    tl.store(row + 2, tl.sum(sum_right, 0))
    k = tl.arange(0, padded)
    live = k < poles
    tl.store(row + 3 + k, tl.sum(sum_gwd, 0), mask=live)
    tl.store(row + 3 + poles + k, tl.sum(sum_gw, 0), mask=live)
    tl.store(row + 3 + 2 * poles + k, tl.sum(sum_gwfd, 0), mask=live)
    tl.store(row + 3 + 3 * poles + k, tl.sum(sum_gwf, 0), mask=live)
