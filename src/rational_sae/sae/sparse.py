"""A training step that does one dense product: everything after the pre-activations touches listed entries only.

Of n · d_sae pre-activations under 2 % are active or in the band of the threshold's gradient. The encoder product is
dense, because the selection needs every entry; the decoder, both of its gradients and the encoder's weight gradient
are sparse products over those entries. Gradients equal those of `SAE.outputs` to rounding.

What is promised of the codes, on every device: pre-activations of listed entries are float32 sums of the same products
as `SAE.encode`'s, in an order that may differ, so two of them differ by at most `summing_error`; and an entry is active
in one and not in the other only if its pre-activation is that close to its threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rational_sae.kernels.products import linear
from rational_sae.kernels.selection import bfloat16_gains, where_above, where_true
from rational_sae.sae.entries import Decode, Encode, Entries
from rational_sae.sae.model import SAE

MOST_DENSE = 0.1
"""Share of entries above which dense products are quicker. On two cores (benchmarks/density.py; d_in 576, d_sae 4608,
batch 1024) a sparse step took .5 of a dense one's time at .04, .8 at .08 and 1.5 at .16."""

FLOAT32_ROUNDING, BFLOAT16_ROUNDING = 2.0**-24, 2.0**-8
"""Largest relative error of rounding to nearest, with 24 and 8 significant bits."""

SLACK_DEVIATIONS = 6
"""Standard deviations of a bfloat16 product's error by which selection is widened. Errors of rounding are independent
and bounded, so one entry in 1e9 lies further off (Hoeffding)."""


@dataclass(frozen=True)
class Reconstruction:
    """One batch through an SAE."""

    x_hat: Tensor
    """[n, d_in]."""
    code: Tensor
    """[m] float32, 0 for listed entries that are not active; or all of them, [n, d_sae], by dense products."""
    latent: Tensor
    """int64, the latent of each code: [m], or [d_sae] for all of them."""
    l0: Tensor
    """Scalar that carries the thresholds' gradient."""


def reconstruct(sae: SAE, x: Tensor, *, sparse: bool) -> Reconstruction:
    """x̂ and the codes of x: [n, d_in], by sparse or by dense products."""
    if not sparse:
        x_hat, z, l0 = sae.outputs(x)
        return Reconstruction(x_hat, z, torch.arange(sae.d_sae, device=z.device), l0)
    normalised, state = sae.normalise(x.float())
    offset = sae.b_dec if sae.apply_b_dec_to_input else None
    centred = normalised if offset is None else normalised - offset.detach()
    entries, value = _listed(sae, centred)
    value = Encode.apply(value, centred, entries, sae.W_enc, sae.b_enc, offset)
    if sae.looks is not None:
        rest = normalised - sae.b_dec
        value = sae.looks.listed(value, entries, rest, sae.W_enc.T, sae.W_dec)
        level = sae.gate.level()
        if level is not None:  # most candidates are no code, and not near one, once their last look is known
            near = where_true(value.detach() > level.detach()[entries.latent])
            entries, value = entries.select(near), value[near]
    code, l0 = sae.gate.codes(value, entries.latent, len(x))
    x_hat = sae.with_skip(sae.denormalise(Decode.apply(code, entries, sae.W_dec) + sae.b_dec, state), normalised)
    return Reconstruction(x_hat, code, entries.latent, l0)


def summing_error(sae: SAE, centred: Tensor) -> Tensor:
    """[n, d_sae] float32: the most by which two float32 pre-activations of one entry differ, summed in any two orders.

    centred: [n, d_in], what the encoder multiplies. Twice the bound γ Σ|x_i||w_ij| of Higham, Accuracy and Stability of
    Numerical Algorithms, §3.1, with γ = m u / (1 − m u) for the m = d_in + 1 terms, the bias among them.
    """
    terms = (sae.d_in + 1) * FLOAT32_ROUNDING
    return 2 * terms / (1 - terms) * (centred.abs() @ sae.W_enc.abs() + sae.b_enc.abs())


def _listed(sae: SAE, centred: Tensor) -> tuple[Entries, Tensor]:
    """The entries that the gate asks for and their pre-activations in float32: [m] each.

    Under a gate with a level for each latent the bias is taken off the level, and not added to all entries: a pass
    over [n, d_sae] less. Where the device multiplies bfloat16 faster the dense product then only selects: the level is
    lowered by more than the product's rounding error, and the values of what is listed are computed again in float32.
    """
    weights, bias = sae.W_enc.detach(), sae.b_enc.detach()
    level = sae.gate.level() if sae.looks is None else sae.looks.level
    if level is None:
        h = linear(centred, weights.T, bias)
        entries = Entries(sae.gate.places(h), h.shape)
        return entries, h.flatten()[entries.places]
    level = level.detach() - bias
    if sae.gate.has_threshold and bfloat16_gains(centred.device.type):
        entries = _selected_roughly(centred, weights, level)
        value = entries.dots(centred, weights.T) + bias[entries.latent]
        if sae.looks is None:
            return entries, value
        candidates = where_true(value > (level + bias)[entries.latent])  # what is listed besides is none
        return entries.select(candidates), value[candidates]
    product = linear(centred, weights.T)
    entries = Entries(where_above(product, level), product.shape)
    return entries, product.flatten()[entries.places] + bias[entries.latent]


def _selected_roughly(centred: Tensor, weights: Tensor, level: Tensor) -> Entries:
    """Entries of centred @ weights above level: [d_sae], and some that are just below, by a product in bfloat16.

    Both factors are rounded, each by at most u of itself and by u/√3 in the mean square, so the error of an entry has a
    standard deviation below √(2/3) u (Σ x_i² w_ij²)^½, where the largest x_i² of the batch stands for each token's. The
    sum is rounded once more; rounding keeps the order, so the level is rounded down by as much.
    """
    rounded = weights.T.bfloat16()
    product = (centred.bfloat16() @ rounded.T).float()
    largest = centred.square().amax(0).bfloat16()
    deviation = (2 / 3) ** 0.5 * BFLOAT16_ROUNDING * (rounded.square_() @ largest).float().sqrt()
    lowered = level - SLACK_DEVIATIONS * deviation
    return Entries(where_above(product, lowered - BFLOAT16_ROUNDING * lowered.abs()), product.shape)


@torch.no_grad()
def sparse_pays(sae: SAE, x: Tensor) -> bool:
    """Whether sparse products are possible on this device and quicker at the density seen on x: [n, d_in]."""
    if not sae.gate.lists_entries:
        return False
    h = sae.first_look(x)
    if sae.looks is not None:
        places = where_above(h, sae.looks.level)
    else:
        with torch.enable_grad():
            places = sae.gate.places(h)
    return len(places) <= MOST_DENSE * h.numel() and _supported(x.device)


def _supported(device: torch.device) -> bool:
    """Whether this build of torch has the sparse products on this device."""
    try:
        entries, one = Entries(torch.tensor([0, 3], device=device), torch.Size([2, 2])), torch.ones(2, device=device)
        square = torch.eye(2, device=device)
        for product in (entries.product, entries.transposed_product):
            product(one, square)
        entries.dots(square, square)
    except (RuntimeError, NotImplementedError):
        return False
    return True
