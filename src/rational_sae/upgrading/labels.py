"""Labels of latents after fine-tuning: which of a teacher's explanations probably no longer hold.

Latents keep their index through an upgrade, so explanations written for the teacher (say on Neuronpedia) can be looked
up for the upgraded SAE. A latent whose direction has turned means something else.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from rational_sae.sae.model import SAE

STALE_COSINE = 0.9
"""Cosine to the teacher's direction under which a label is called stale (heuristic)."""


@torch.no_grad()
def turned(sae: SAE, teacher: SAE) -> Tensor:
    """The smaller of each latent's two cosines to the teacher: of W_enc columns, and of W_dec rows. [d_sae]."""
    encoder = cosine_similarity(sae.W_enc, teacher.W_enc, dim=0)
    return torch.minimum(encoder, cosine_similarity(sae.W_dec, teacher.W_dec, dim=1))


def label_flags(sae: SAE, teacher: SAE) -> dict[str, Any]:
    """What the SAE's metadata says of labels: the rule, and the latents that it flags."""
    stale = (turned(sae, teacher) < STALE_COSINE).nonzero()[:, 0]
    return {
        "rule": f"stale: cosine to the teacher's W_enc column or W_dec row under {STALE_COSINE}",
        "stale": stale.tolist(),
    }
