"""Labels of latents after fine-tuning: which of a teacher's explanations probably no longer hold.

Latents keep their index through an upgrade, so explanations written for the teacher (say on Neuronpedia) can be looked
up for the upgraded SAE. A latent whose direction has turned means something else, and so does one that promotes other
tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from rational_sae.data.activations import Reader
from rational_sae.data.vectors import GivenVectors
from rational_sae.errors import HostError
from rational_sae.evaluation.logits import Effects, effects
from rational_sae.sae.model import SAE

STALE_COSINE = 0.9
"""Cosine to the teacher's direction under which a label is called stale (heuristic)."""

KEPT_TOKENS = 0.3
"""Share of the teacher's ten most promoted tokens under which a latent is said to promote others (heuristic, and not
yet compared with what people say of labels: so such latents are listed apart, not as stale)."""

MOST_PRODUCTS = 10**12
"""Multiplications for the logits of one SAE's latents: some 20 seconds on two cores, 16 384 latents of width 1 000
(heuristic). Of a larger SAE labels are judged by directions alone."""


@torch.no_grad()
def turned(sae: SAE, teacher: SAE) -> Tensor:
    """The smaller of each latent's two cosines to the teacher: of W_enc columns, and of W_dec rows. [d_sae]."""
    encoder = cosine_similarity(sae.W_enc, teacher.W_enc, dim=0)
    return torch.minimum(encoder, cosine_similarity(sae.W_dec, teacher.W_dec, dim=1))


def label_flags(sae: SAE, teacher: SAE, kept: Tensor | None = None) -> dict[str, Any]:
    """What the SAE's metadata says of labels: the rules, and the latents that each flags.

    kept: [d_sae] share of the teacher's most promoted tokens that each latent still promotes (`kept_tokens`); None
    where that was not looked at.
    """
    stale = (turned(sae, teacher) < STALE_COSINE).nonzero()[:, 0]
    found = {
        "rule": f"stale: cosine to the teacher's W_enc column or W_dec row under {STALE_COSINE}",
        "stale": stale.tolist(),
    }
    if kept is None:
        return found
    return found | {
        "rule_tokens": f"under {KEPT_TOKENS} of the ten tokens that the teacher's latent promotes most",
        "other_tokens": (kept < KEPT_TOKENS).nonzero()[:, 0].tolist(),
    }


def promoted(reader: Reader | GivenVectors, sae: SAE) -> Effects | None:
    """Which tokens each latent promotes; None where what is at the hook has no direct effect on logits, where vectors
    alone are given, and where finding them would take more than MOST_PRODUCTS."""
    if isinstance(reader, GivenVectors):
        return None
    products = sae.W_dec.numel() * reader.host.model.get_input_embeddings().weight.shape[0]
    try:
        return effects(reader.host, reader.hook, sae.W_dec) if products <= MOST_PRODUCTS else None
    except HostError:
        return None
