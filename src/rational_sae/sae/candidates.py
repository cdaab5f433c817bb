"""How many entries further looks may use: a multiple of the L0 that is held, whatever training does to
pre-activations.

A floor that stayed where it began let them sink below it: within 150 steps an SAE that looks with r(t) = t had 35 of 96
candidates a token left (TopK demo teacher), then too few to hold its L0, and its error rose.
"""

from __future__ import annotations

import torch

from rational_sae.sae.match_l0 import CHUNK
from rational_sae.sae.model import SAE

CANDIDATES = 3.0
"""Entries that looks may use, in multiples of the L0 to be held (heuristic; benchmarks/looks.py tries others)."""


@torch.no_grad()
def candidate_floor(sae: SAE, x: torch.Tensor, target_l0: float) -> float:
    """The t above which an SAE's first look has CANDIDATES × L0 entries a token, on average over x: [n, d_in]."""
    scale, wanted = sae.gate.scales(), round(CANDIDATES * target_l0 * len(x))
    kept = torch.empty(0, device=x.device)
    for part in x.split(CHUNK):
        t = (sae.first_look(part) / scale).flatten()
        kept = torch.cat([kept, t.topk(min(wanted, t.numel())).values])
        kept = kept.topk(min(wanted, kept.numel())).values
    return float(kept.min())
