"""What further looks follow while an SAE is trained: their units the thresholds, and their floor the pre-activations.

The floor lets a multiple of the L0 that is held through. One that stayed where it began lost them: within 150 steps an
SAE that looks with r(t) = t had 35 of 96 candidates a token left (TopK demo teacher), then too few to hold its L0, and
its error rose.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rational_sae.sae.match_l0 import CHUNK
from rational_sae.sae.model import SAE

CANDIDATES = 3.0
"""Entries that looks may use, in multiples of the L0 to be held (heuristic; benchmarks/looks.py tries others)."""


EDGE = 0.25
"""t of a latent's threshold: a look's shape is designed on codes of up to four times their threshold (heuristic)."""

LOWEST, LOWEST_NEAR_ZERO = 0.05, 0.5
"""Of the gate's scale: what a threshold counts as at least, and where thresholds begin near 0, as a ReLU's do. Training
raises those to .4 of the scale, and the interval on which the estimate is shaped has to be there then: .05, .25, .5 and
1 gave an FVU of .1620, .1601, .1589 and .1598 (ReLU demo teacher, 300 steps). TopK and JumpReLU begin at .4, and lose
.5 % by .5."""

NEAR_ZERO = 0.1
"""Of the gate's scale: the median threshold below which they begin near 0."""


def begins_near_zero(sae: SAE) -> bool:
    """Whether the thresholds that training starts from lie near 0."""
    return float((sae.gate.threshold / sae.gate.scales()).detach().median()) < NEAR_ZERO


def least_unit(sae: SAE) -> float:
    """What a threshold counts as at least while this SAE is trained, of the gate's scale."""
    return LOWEST_NEAR_ZERO if begins_near_zero(sae) else LOWEST


@torch.no_grad()
def follow_(sae: SAE, x: Tensor | None, target_l0: float) -> None:
    """Bring an SAE's looks up to date with its thresholds, and with x: [n, d_in] if there is any.

    Units keep their mean: one that followed thresholds which are lowered to hold an L0 would let more into the
    estimate, which explains more away, so that thresholds are lowered again."""
    assert sae.looks is not None
    pattern = units(sae, sae.looks.least)
    sae.looks.unit.copy_(pattern * (sae.looks.unit.mean() / pattern.mean()))
    if x is not None:
        sae.looks.floor.fill_(candidate_floor(sae, sae.looks.unit, x, target_l0))


@torch.no_grad()
def units(sae: SAE, least: float) -> Tensor:
    """[d_sae]: u of each latent, by its threshold. least: see `least_unit`."""
    return torch.maximum(sae.gate.threshold, least * sae.gate.scales()) / EDGE


@torch.no_grad()
def candidate_floor(sae: SAE, unit: Tensor, x: Tensor, target_l0: float) -> float:
    """The t above which an SAE's first look has CANDIDATES × L0 entries a token, on average over x: [n, d_in]."""
    wanted = round(CANDIDATES * target_l0 * len(x))
    kept = torch.empty(0, device=x.device)
    for part in x.split(CHUNK):
        t = (sae.first_look(part) / unit).flatten()
        kept = torch.cat([kept, t.topk(min(wanted, t.numel())).values])
        kept = kept.topk(min(wanted, kept.numel())).values
    return float(kept.min())
