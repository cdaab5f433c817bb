"""An SAE that learned nothing, as a baseline of probes: random directions, as sparse as another.

Probes on random SAEs come close to those on trained ones (arXiv 2602.14111), so a probe's accuracy says little by
itself.
"""

from __future__ import annotations

import torch

from rational_sae.data.activations import Reader
from rational_sae.gates.topk import TopKGate
from rational_sae.sae.model import SAE

MEAN_TOKENS = 2048
"""Training tokens that the mean of x is taken of (heuristic)."""


@torch.no_grad()
def random_sae(reader: Reader, like: SAE, l0: float, *, seed: int) -> SAE:
    """As wide as another SAE: Gaussian unit vectors as W_enc and its transpose as W_dec, b_dec the mean of x, and a
    TopK of the other's l0."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(like.d_sae, reader.d_in, generator=generator), dim=-1)
    mean = reader.sample("train", MEAN_TOKENS, needed=1).mean(0)[: reader.d_in].cpu()
    gate = TopKGate(min(like.d_sae, max(1, round(l0))))
    found = SAE(directions.T.clone(), torch.zeros(like.d_sae), directions, mean, gate)
    return found.to(reader.host.device)
