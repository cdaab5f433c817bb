"""Matched sparsity: the one global threshold move that brings an SAE's L0 to a target.

A smooth gate has no threshold. While something is measured its codes get one, the same multiple of s_j for all, and
those below are dropped: figures at an L0 may use no more codes than that L0 says.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator

import torch
from torch import Tensor

from rational_sae.sae import SAE
from rational_sae.selection import where_true

CHUNK = 2048
"""Tokens encoded at once: bounds memory to a few [CHUNK, d_sae] tensors."""


def can_shift(sae: SAE) -> bool:
    """Whether the SAE's sparsity follows a threshold (a TopK's k and a smooth gate's zeros do not)."""
    return can_match(sae) and sae.gate.exact_zeros


def can_match(sae: SAE) -> bool:
    """Whether the SAE can be measured at another L0 (a TopK cannot)."""
    return sae.gate.elementwise


@torch.no_grad()
def solve_shift(sae: SAE, x: Tensor, target_l0: float) -> float:
    """The amount for `gate.shift_` that makes the mean L0 over x: [n, d_in] equal the target.

    Exact up to ties: the margin of the (target · n)-th most active entry.
    """
    wanted = round(target_l0 * len(x))
    margins = torch.cat([_candidates(sae, part, target_l0) for part in x.split(CHUNK)])
    if not 0 < wanted < len(margins):
        return 0.0
    top = margins.topk(wanted + 1).values
    return float((top[-2] + top[-1]) / 2)


def _candidates(sae: SAE, x: Tensor, target_l0: float) -> Tensor:
    """Margins of the entries that a threshold near the target could separate."""
    h, _ = sae.gate.in_token_units(sae.preactivations(x))
    margin = sae.gate.margin(h).flatten()
    near = margin[where_true(margin > -0.5)]
    return near if len(near) > 1.2 * target_l0 * len(x) else margin


@contextlib.contextmanager
def shifted(sae: SAE, amount: float) -> Iterator[SAE]:
    """The SAE with its thresholds moved, and put back on leaving (a shift's unit may follow the threshold itself)."""
    before = copy.deepcopy(sae.gate.state_dict())
    sae.gate.shift_(amount)
    try:
        yield sae
    finally:
        sae.gate.load_state_dict(before)
