"""Listed entries of a matrix of codes, and the products over them alone, with their gradients."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from rational_sae.kernels.selection import stable_order, where_true


@dataclass(frozen=True, eq=False)
class Entries:
    """Listed entries of an [n, d_sae] matrix, row by row. The order by latent is worked out when a gradient asks.

    Every product is a sum of bags, `embedding_bag`, forward only: no atomics, so the same bits at every run.
    """

    places: Tensor
    """[m] int64, flat and ascending."""
    shape: torch.Size

    def select(self, index: Tensor) -> Entries:
        """Some of them. index: [k] int64, ascending."""
        return Entries(self.places[index], self.shape)

    @cached_property
    def row(self) -> Tensor:
        """[m] int64."""
        return self.places.div(self.shape[1], rounding_mode="floor")

    @cached_property
    def latent(self) -> Tensor:
        """[m] int64, ascending in each row."""
        return self.places - self.row * self.shape[1]

    @cached_property
    def _by_latent(self) -> tuple[Tensor, Tensor, Tensor]:
        """Ordered by latent, then by row: [m] int64 the order, [m] int64 rows, [d_sae] int64 each latent's start."""
        order = stable_order(self.latent, self.shape[1])
        return order, self.row[order], _starts(self.latent, self.shape[1])

    def product(self, value: Tensor, dense: Tensor) -> Tensor:
        """The matrix with these values times dense: [n, d]. value: [m]; dense: [d_sae, d]."""
        return _bags(dense, self.latent, _starts(self.row, self.shape[0]), value)

    def transposed_product(self, value: Tensor, dense: Tensor) -> Tensor:
        """The transposed matrix with these values times dense: [d_sae, d]. value: [m]; dense: [n, d]."""
        order, row, starts = self._by_latent
        return _bags(dense, row, starts, value[order])

    def dots(self, left: Tensor, right: Tensor) -> Tensor:
        """left[row] · right[latent] of each entry: [m]. left: [n, d]; right: [d_sae, d].

        The gradient of a bag's weights; latent by latent, so that the batch, the smaller of the two, stays in cache.
        """
        order, row, starts = self._by_latent
        found = torch.ops.aten._embedding_bag_per_sample_weights_backward(
            right, left, row, starts, self.latent[order], mode=0
        )
        return torch.empty_like(found).index_copy_(0, order, found)


def _starts(index: Tensor, size: int) -> Tensor:
    """[size] int64: where each value starts among sorted ones. index: [m] int64, in any order."""
    ends = torch.bincount(index, minlength=size).cumsum(0)
    return torch.nn.functional.pad(ends[:-1], (1, 0))


def _bags(dense: Tensor, rows: Tensor, starts: Tensor, value: Tensor) -> Tensor:
    """Σ value · dense[row] over each bag: [bags, d]."""
    return embedding_bag(rows, dense, starts, mode="sum", per_sample_weights=value)


class Encode(torch.autograd.Function):
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
        # Entries in the band of a threshold alone have none.
        chosen = where_true(grads[0] != 0)
        entries, g = ctx.entries.select(chosen), grads[0][chosen]
        by_bias = torch.zeros(entries.shape[1], device=centred.device).index_add_(0, entries.latent, g)
        by_offset = -(W_enc @ by_bias) if ctx.subtracts else None
        return None, None, None, entries.transposed_product(g, centred).T, by_bias, by_offset


class Decode(torch.autograd.Function):
    """Σ_j z_j W_dec[j] over listed codes; those that are 0 get their gradient, and cost no more than that."""

    @staticmethod
    def forward(ctx: Any, code: Tensor, entries: Entries, W_dec: Tensor) -> Tensor:
        chosen = where_true(code != 0)
        active, z = entries.select(chosen), code[chosen]
        ctx.save_for_backward(z, W_dec)
        ctx.entries, ctx.active = entries, active
        return active.product(z, W_dec)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, Tensor]:
        z, W_dec = ctx.saved_tensors
        g = grads[0].contiguous()
        return ctx.entries.dots(g, W_dec), None, ctx.active.transposed_product(z, g)


class Dots(torch.autograd.Function):
    """left[row] · right[latent] of listed entries: what an encoder sees. left: [n, d]; right: [d_sae, d]."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, entries: Entries) -> Tensor:
        ctx.save_for_backward(left, right)
        ctx.entries = entries
        return entries.dots(left, right)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        left, right = ctx.saved_tensors
        chosen = where_true(grads[0] != 0)  # a code that is not active passes nothing on
        entries, g = ctx.entries.select(chosen), grads[0][chosen]
        return entries.product(g, right), entries.transposed_product(g, left), None
