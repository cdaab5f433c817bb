"""The teacher with a linear map on its output, which is all that is trained: what a stock SAE's file can gain.

x̂ becomes x̂ + (x̂ − b_dec)·M and gets another b_dec, so that the map is W_dec·(1 + M) and a bias. Where the encoder
reads b_dec, too, that is first written into b_enc, and codes stay as they are. The counterpart in predictions of
`rescaled`; Karvonen (arXiv 2503.17272) found such a map to give most of what fine-tuning with KL gives.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from rational_sae.sae.model import SAE


class LinearMap(nn.Module):
    """W ↦ W·(1 + M), M of full rank or of rank r."""

    def __init__(self, d_in: int, rank: int | None, device: torch.device, seed: int) -> None:
        super().__init__()
        if rank is None:
            self.change = nn.Parameter(torch.zeros(d_in, d_in, device=device))
            return
        drawn = torch.randn(d_in, rank, generator=torch.Generator().manual_seed(seed)) / d_in**0.5
        self.left = nn.Parameter(drawn.to(device))
        self.right = nn.Parameter(torch.zeros(rank, d_in, device=device))

    def forward(self, rows: Tensor) -> Tensor:
        """rows: [d_sae, d_in]."""
        change = self._parameters.get("change")
        return rows + (rows @ self.left @ self.right if change is None else rows @ change)


def adapted(teacher: SAE, rank: int | None, seed: int) -> SAE:
    """A copy whose W_dec is seen through a map that starts at 1, and nothing else but b_dec is trained.

    rank: of the map; None or d_in and above: full.
    """
    sae = teacher.with_gate(copy.deepcopy(teacher.gate))
    with torch.no_grad():
        if sae.apply_b_dec_to_input:
            sae.b_enc -= sae.b_dec @ sae.W_enc
            sae.apply_b_dec_to_input = False
    sae.requires_grad_(False)
    sae.b_dec.requires_grad_(True)
    full = rank is None or rank >= sae.d_in
    parametrize.register_parametrization(sae, "W_dec", LinearMap(sae.d_in, None if full else rank, sae.device, seed))
    return sae


def folded_(sae: SAE) -> SAE:
    """The map written into W_dec, for good; any other SAE as it is."""
    if parametrize.is_parametrized(sae, "W_dec"):
        parametrize.remove_parametrizations(sae, "W_dec", leave_parametrized=True)
    return sae
