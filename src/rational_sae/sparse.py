"""A training step that does one dense product: everything after the pre-activations touches listed entries only.

Of n · d_sae pre-activations under 2 % are active or in the band of the threshold's gradient. The encoder product is
dense, because the selection needs every entry; the decoder, both of its gradients and the encoder's weight gradient
are sparse products over those entries (NUMERICS §3). Gradients equal those of `SAE.outputs` to rounding.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from rational_sae.sae import SAE

MOST_DENSE = 0.1
"""Share of entries above which dense products are quicker. On two cores (benchmarks/density.py; d_in 576, d_sae 4608,
batch 1024) a sparse step took .3 of a dense one's time at .08 and 1.2 of it at .16."""


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
    with torch.no_grad():
        centred = normalised if offset is None else normalised - offset
        h = torch.addmm(sae.b_enc, centred, sae.W_enc)
    places = sae.gate.places(h)
    entries = Entries(places, h.shape)
    value = _Encode.apply(h.flatten()[places], centred, entries, sae.W_enc, sae.b_enc, offset)
    code, l0 = sae.gate.codes(value, entries.latent, len(h))
    x_hat = sae.denormalise(_Decode.apply(code, entries, sae.W_dec) + sae.b_dec, state)
    return Reconstruction(x_hat, code, entries.latent, l0)


@torch.no_grad()
def sparse_pays(sae: SAE, x: Tensor) -> bool:
    """Whether sparse products are possible on this device and quicker at the density seen on x: [n, d_in]."""
    if not sae.gate.exact_zeros:
        return False
    h = sae.preactivations(x)
    with torch.enable_grad():
        places = sae.gate.places(h)
    return len(places) <= MOST_DENSE * h.numel() and _supported(x.device)


def _supported(device: torch.device) -> bool:
    """Whether this build of torch multiplies sparse matrices on this device."""
    try:
        entries = Entries(torch.tensor([0, 3], device=device), torch.Size([2, 2]))
        square = torch.eye(2, device=device)
        torch.sparse.sampled_addmm(entries.matrix(torch.ones(2, device=device)), square, square, beta=0.0)
        entries.transposed_product(torch.ones(2, device=device), square)
    except (RuntimeError, NotImplementedError):
        return False
    return True


@dataclass(frozen=True, eq=False)
class Entries:
    """Listed entries of an [n, d_sae] matrix, row by row. The order by latent is worked out when a gradient asks."""

    places: Tensor
    """[m] int64, flat and ascending."""
    shape: torch.Size

    @cached_property
    def row(self) -> Tensor:
        """[m] int64."""
        return self.places.div(self.shape[1], rounding_mode="floor")

    @cached_property
    def latent(self) -> Tensor:
        """[m] int64, ascending in each row."""
        return self.places - self.row * self.shape[1]

    @cached_property
    def rows(self) -> Tensor:
        """[n + 1] int64: where each row starts."""
        return _starts(self.row, self.shape[0])

    @cached_property
    def by_latent(self) -> Tensor:
        """[m] int64: the order that sorts entries by latent, then by row."""
        return self.latent.argsort(stable=True)

    @cached_property
    def latents(self) -> Tensor:
        """[d_sae + 1] int64: where each latent starts in that order."""
        return _starts(self.latent, self.shape[1])

    def matrix(self, value: Tensor) -> Tensor:
        """[n, d_sae] sparse, with these values: [m]."""
        return _csr(self.rows, self.latent, value, self.shape)

    def product(self, value: Tensor, dense: Tensor) -> Tensor:
        """matrix(value) · dense: [n, d] of dense: [d_sae, d]."""
        return embedding_bag(self.latent, dense, self.rows[:-1], mode="sum", per_sample_weights=value)

    def transposed_product(self, value: Tensor, dense: Tensor) -> Tensor:
        """matrix(value)ᵀ · dense: [d_sae, d] of dense: [n, d]."""
        order = self.by_latent
        shape = torch.Size([self.shape[1], self.shape[0]])
        return _csr(self.latents, self.row[order], value[order], shape) @ dense


def _starts(index: Tensor, size: int) -> Tensor:
    return torch.nn.functional.pad(torch.bincount(index, minlength=size).cumsum(0), (1, 0))


def _csr(starts: Tensor, columns: Tensor, value: Tensor, shape: torch.Size) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch calls the whole layout beta, once
        return torch.sparse_csr_tensor(starts, columns, value, shape)


class _Encode(torch.autograd.Function):
    """Listed pre-activations (computed already, with all others) as a function of the encoder's parameters."""

    @staticmethod
    def forward(
        ctx: Any,
        value: Tensor,
        centred: Tensor,
        entries: Entries,
        W_enc: Tensor,
        b_enc: Tensor,
        b_dec: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(centred, W_enc)
        ctx.entries, ctx.subtracts = entries, b_dec is not None
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        centred, W_enc = ctx.saved_tensors
        entries: Entries = ctx.entries
        by_bias = torch.zeros(entries.shape[1], device=centred.device).index_add_(0, entries.latent, grads[0])
        by_offset = -(W_enc @ by_bias) if ctx.subtracts else None
        return None, None, None, entries.transposed_product(grads[0], centred).T, by_bias, by_offset


class _Decode(torch.autograd.Function):
    """Σ_j z_j W_dec[j] over listed codes."""

    @staticmethod
    def forward(ctx: Any, code: Tensor, entries: Entries, W_dec: Tensor) -> Tensor:
        ctx.save_for_backward(code, W_dec)
        ctx.entries = entries
        return entries.product(code, W_dec)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, Tensor]:
        code, W_dec = ctx.saved_tensors
        entries: Entries = ctx.entries
        g = grads[0].contiguous()
        by_code = torch.sparse.sampled_addmm(entries.matrix(torch.zeros_like(code)), g, W_dec.T, beta=0.0).values()
        return by_code, None, entries.transposed_product(code, g)
