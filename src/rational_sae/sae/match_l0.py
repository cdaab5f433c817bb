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

from rational_sae.kernels.selection import where_true
from rational_sae.sae.model import SAE

CHUNK = 2048
"""Tokens encoded at once: bounds memory to a few [CHUNK, d_sae] tensors."""

NEAR = -0.5
"""Margin, in units of `shift_`, above which entries are looked at first: nearly always there are enough, and they are
few (heuristic; where there are not, all are looked at)."""


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
    if not 0 < wanted < len(x) * sae.d_sae:
        return 0.0
    margins = torch.cat([_margins(sae, part, above=NEAR) for part in x.split(CHUNK)])
    if wanted >= len(margins):  # the bar lies lower than that: no entry may be left out
        margins = torch.cat([_margins(sae, part) for part in x.split(CHUNK)])
    top = margins.topk(wanted + 1).values
    return float((top[-2] + top[-1]) / 2)


def _margins(sae: SAE, x: Tensor, above: float | None = None) -> Tensor:
    """[m]: margins of all entries, or of those above a bar."""
    margin = sae.gate.margin(sae.preactivations(x)).flatten()
    return margin if above is None else margin[where_true(margin > above)]


@contextlib.contextmanager
def shifted(sae: SAE, amount: float) -> Iterator[SAE]:
    """The SAE with its thresholds moved, and put back on leaving (a shift's unit may follow the threshold itself)."""
    before = copy.deepcopy(sae.gate.state_dict())
    sae.gate.shift_(amount)
    try:
        yield sae
    finally:
        sae.gate.load_state_dict(before)
