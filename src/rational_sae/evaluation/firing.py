"""How often latents fire: histograms of the share of tokens on which each is active."""

from __future__ import annotations

from typing import Any

import numpy as np

from rational_sae.evaluation.measure import Measurements

EDGES = np.linspace(-5, 0, 41)
"""log10 of the share of tokens."""


def firing(sums: Measurements) -> dict[str, Any]:
    """`report["firing"]`: for each row, latents by how often they fire, and how many never did."""
    tokens = float(sums.tokens.sum())
    counts, dead = {}, {}
    for name, row in sums.rows.items():
        share = row.fired.numpy() / tokens
        dead[name] = int((share == 0).sum())
        counts[name] = np.histogram(np.log10(share[share > 0]), EDGES)[0].tolist()
    return {"edges_log10": EDGES.tolist(), "counts": counts, "dead": dead}
