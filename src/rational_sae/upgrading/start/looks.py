"""The looks that training starts from: designed by a certified fit, chosen by what they give on calibration data.

The estimate is the gate's own jump, made gentle: the minimax fit of t·[t > θ] that leaves a wide gap free around θ, in
which it rises smoothly from 0 to t. θ, the gap and α are the best of a few at the L0 to be held. The rows that
`identity` gets instead look with r(t) = t behind a hard cut, chosen in the same way.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rational_sae.check.verify import reconstruction
from rational_sae.gates.rational import LINE, RationalGate
from rational_sae.rational import cached_fit, target
from rational_sae.sae.candidates import EDGE, begins_near_zero, candidate_floor, least_unit, units
from rational_sae.sae.looks import Look, Looks
from rational_sae.sae.match_l0 import CHUNK, shifted, solve_shift
from rational_sae.sae.model import SAE

PLACES, GAPS = (0.8, 1.0), (0.5, 0.8)
"""Of the rise of the first estimate: its middle, in units of the threshold, and its half-width, in units of that middle
(heuristic: training moves both)."""

STEPS = (0.2, 0.35, 0.5, 0.7)
"""Values of α that are tried."""

CUTS, CUTS_NEAR_ZERO = (0.7, 0.85, 1.0, 1.15), (0.2, 0.35, 0.5, 0.7)
"""Of `identity`'s hard cut, in units of the threshold, and of what counts as one where thresholds begin near 0: with
the first it was 3 % worse there."""

TRIED_ON = 4 * CHUNK
"""Calibration tokens on which they are compared, at most."""

Designs = Callable[[], Iterator[Look]]
"""Looks to try."""


@dataclass(frozen=True)
class Found:
    """Looks, and what an SAE with them gives untrained."""

    looks: Looks
    fvu: float
    """Over the calibration tokens that they were compared on, at the L0 to be held."""


def designed_looks(sae: SAE, x: Tensor, count: int, target_l0: float, degrees: tuple[int, int]) -> Found:
    """The best rational looks before the last of `count`.

    sae: with the last look's gate and no looks; x: [n, d_in] calibration activations in the SAE's units."""
    return best_of(sae, x[:TRIED_ON], count, target_l0, lambda: _rational(degrees))


def hard_looks(sae: SAE, x: Tensor, count: int, target_l0: float) -> Found:
    """The best looks with r(t) = t behind a hard cut; only their α is trained. As `designed_looks`."""
    cuts = CUTS_NEAR_ZERO if begins_near_zero(sae) else CUTS
    found = best_of(sae, x[:TRIED_ON], count, target_l0, lambda: _lines(cuts))
    for look in found.looks:
        look.shape.requires_grad_(False)
    return found


def _rational(degrees: tuple[int, int]) -> Iterator[Look]:
    for place, gap in itertools.product(PLACES, GAPS):
        middle = place * EDGE
        fit = cached_fit(target("jumprelu", threshold=middle, gap=gap * middle), degrees).partial_fractions
        assert fit is not None
        yield Look(fit, 0.0, cut=(1 - gap) * middle)  # below which it is next to nothing


def _lines(cuts: tuple[float, ...]) -> Iterator[Look]:
    yield from (Look(LINE, 0.0, cut=cut * EDGE) for cut in cuts)


@torch.no_grad()
def best_of(sae: SAE, x: Tensor, count: int, target_l0: float, designs: Designs) -> Found:
    """One look after the other, each the best after those before it."""
    gate = sae.gate
    assert isinstance(gate, RationalGate)
    least = least_unit(sae)
    unit = units(sae, least)
    floor = candidate_floor(sae, unit, x, target_l0)
    best: Found | None = None
    for _ in range(count - 1):
        before = [] if best is None else list(best.looks)
        tried = []
        for design in designs():
            for alpha in STEPS:
                look = copy.deepcopy(design)
                look.alpha.fill_(alpha)
                looks = Looks([*copy.deepcopy(before), look], floor, unit, least).to(x.device)
                tried.append(Found(looks, untrained_fvu(sae.with_gate(copy.deepcopy(gate), looks), x, target_l0)))
        best = min(tried, key=lambda found: found.fvu)
    assert best is not None
    return best


@torch.no_grad()
def untrained_fvu(sae: SAE, x: Tensor, target_l0: float) -> float:
    """FVU over x: [n, d_in], with thresholds moved to the L0."""
    with shifted(sae, solve_shift(sae, x, target_l0)):
        return reconstruction(sae, x)[0]
