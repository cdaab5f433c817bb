"""Codes with a hard threshold, exactly 0 below it, and the gradient that passes through the jump."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rational_sae.gates.transition import Transition
from rational_sae.kernels import rational_value, value_slope_sums
from rational_sae.kernels.selection import where_true


def level(threshold: Tensor, transition: Transition) -> Tensor:
    """The thresholds; while gradients are recorded, the lower edges of their bands."""
    if torch.is_grad_enabled() and threshold.requires_grad:
        return threshold.detach() - transition.half_width
    return threshold


class HardCodes(torch.autograd.Function):
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
