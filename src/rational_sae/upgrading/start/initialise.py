"""The start of an upgrade: the teacher in canonical units, and rational gates that behave like its own."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from rational_sae.errors import SourceError
from rational_sae.gates.rational import RationalGate
from rational_sae.gates.rational_topk import RationalTopKGate
from rational_sae.gates.transition import Transition, rational_transition
from rational_sae.rational import Fit, cached_fit, target
from rational_sae.sae.match_l0 import CHUNK
from rational_sae.sae.model import SAE

DOMAIN_COVERAGE = 0.8
"""Share of active pre-activations that the scale of a ReLU gate keeps inside [−1, 1]. Measured at .999, .8 and .5 as
for OUT_OF_RANGE: FVU .2327, .2310, .2305 on a ReLU (identity .2320)."""

DESIGNED_THRESHOLDS = (0.3, 0.2, 0.1, 0.05)
"""θ₀ of a JumpReLU design, in t; the largest that keeps all but OUT_OF_RANGE of the active entries below t = 1."""

OUT_OF_RANGE = 0.2
"""Right of t = 1 the shape goes on straight, which is right for large codes; most of the fit's points belong where most
codes are. Measured at .005, .05 and .2 (300 steps, test tokens): FVU .2176, .2167, .2165 on a TopK, .2216, .2216, .2217
on a JumpReLU, .0884, .0884, .0882 on a TopK of Gemma."""

RELATIVE_GAP = 0.2
"""Half-width of the jump's gap, and of the band that passes gradient, relative to the threshold (heuristic)."""

SHORTEST_ROW = 1e-3
"""Norm under which a decoder row counts as this long, relative to the median (heuristic). In SAELens' JumpReLU teachers
rows of latents that die fall to 3e-7 of it."""


@dataclass(frozen=True)
class Units:
    """How canonical units relate to the teacher's: x·input, z·latent. Undone when an SAE is finished."""

    input: float
    latent: Tensor
    output: float | None = None
    """Of a transcoder's y; None: it has none."""
    d_in: int = 0
    """Where y begins."""

    def of(self, row: Tensor) -> Tensor:
        """Rows in canonical units: [n, d_in], or a transcoder's [x; y]."""
        return row * self._factor(row)

    def back(self, row: Tensor) -> Tensor:
        """The same rows in the teacher's units."""
        return row / self._factor(row)

    def _factor(self, row: Tensor) -> float | Tensor:
        if self.output is None:
            return self.input
        factor = torch.full((row.shape[-1],), self.output, device=row.device)
        factor[: self.d_in] = self.input
        return factor

    def undo_(self, sae: SAE) -> SAE:
        """Bring an SAE trained in canonical units back to the teacher's."""
        sae.fold_offset_()
        sae.rescale_latents_(1 / self.latent)
        sae.rescale_input_(1 / self.input, None if self.output is None else 1 / self.output)
        return sae


def canonical(teacher: SAE, x: Tensor) -> tuple[SAE, Units]:
    """The teacher in units where inputs have mean norm √d_in and decoder rows norm 1, so that one learning rate and
    one bandwidth mean the same for every teacher. x: [n, d_in] calibration activations, as the teacher sees them.

    A TopK's selection compares latents, so its latents are rescaled by one common factor only. A decoder row of nearly
    no length, of a latent that died in training, is not brought to 1: revived, it would have a code, and a scale, of
    another order than all others.
    """
    sae = copy.deepcopy(teacher)
    scales_itself, read = teacher.normalisation != "none", x[..., : teacher.d_in]
    factor = 1.0 if scales_itself else teacher.d_in**0.5 / float(read.norm(dim=-1).mean())
    output = teacher.d_out**0.5 / float(teacher.target(x).norm(dim=-1).mean()) if teacher.transcodes else None
    sae.rescale_input_(factor, output)
    latent = sae.W_dec.detach().norm(dim=-1)
    latent = latent.clamp_min(max(1e-8, SHORTEST_ROW * float(latent.median())))
    if not sae.gate.elementwise:
        latent = latent.mean().expand_as(latent).clone()
    sae.rescale_latents_(latent)
    return sae, Units(factor, latent, output, teacher.d_in)


@dataclass(frozen=True)
class Start:
    """Rational gates for one teacher."""

    fit: Fit
    """Of the shape that is trained."""
    init: RationalGate
    """Reproduces the teacher (for a TopK: with its own per-token support)."""
    threshold: Tensor
    """[d_sae]: element-wise thresholds, the teacher's own or the one separating its top k on average."""
    transition: Transition
    out_of_range: float
    """Share of active pre-activations with t > 1."""


def rational_start(teacher: SAE, x: Tensor, degrees: tuple[int, int], kind: type[RationalGate]) -> Start:
    """Design the gate of the row `init` for a teacher in canonical units. x: [n, d_in] calibration activations.

    kind: of the registry; a TopK starts from its own quota, whatever the kind. Raises SourceError if the teacher is
    rational, SettingsError if it cannot have that kind.
    """
    gate = teacher.gate
    if gate.family == "rational":
        raise SourceError("this SAE is rational already", "give a ReLU, JumpReLU or TopK SAE")
    if gate.has_threshold:
        return threshold_start(gate.threshold.detach(), teacher, x, degrees, kind)
    h = torch.cat([_preactivation_sample(teacher, part) for part in x.split(CHUNK)])
    return _relu_start(teacher, h, degrees, kind if gate.k is None else RationalTopKGate, gate.k)


def threshold_start(
    threshold: Tensor, teacher: SAE, x: Tensor, degrees: tuple[int, int], kind: type[RationalGate]
) -> Start:
    """A JumpReLU's gate: s_j = θ_j/θ₀ carries the per-latent thresholds exactly with one shared shape.

    Under the hard gate the cut makes the jump, so the fitted one sits a gap to the left of it and r(t) ≈ t on the whole
    support; the smooth gate has only the fitted jump, and it sits at the threshold.
    """
    floor = 1e-3 * float(threshold.mean()) + 1e-6
    safe = threshold.clamp_min(floor)
    ratios = _active_ratios(teacher, x, safe)
    theta = next((t for t in DESIGNED_THRESHOLDS if float((ratios * t > 1).float().mean()) <= OUT_OF_RANGE), 0.05)
    gap = RELATIVE_GAP * theta
    fit = cached_fit(target("jumprelu", threshold=theta - gap if kind.has_threshold else theta, gap=gap), degrees)
    transition = _transition(RELATIVE_GAP * safe)
    assert fit.partial_fractions is not None
    gate = kind.designed(fit.partial_fractions, safe / theta, threshold, transition=transition, k=None)
    return Start(fit, gate, threshold, transition, float((ratios * theta > 1).float().mean()))


def _relu_start(teacher: SAE, h: Tensor, degrees: tuple[int, int], kind: type[RationalGate], k: int | None) -> Start:
    positive = h[h > 0]
    scale = float(positive.quantile(DOMAIN_COVERAGE))
    fit = cached_fit(target("relu"), degrees)
    d_sae = teacher.d_sae
    threshold = torch.zeros(d_sae, device=h.device)
    transition = _transition(torch.full_like(threshold, RELATIVE_GAP * float(positive.median())))
    assert fit.partial_fractions is not None
    gate = kind.designed(
        fit.partial_fractions, torch.full_like(threshold, scale), threshold, transition=transition, k=k
    )
    return Start(fit, gate, threshold, transition, float((positive > scale).float().mean()))


def _transition(half_width: Tensor) -> Transition:
    """The slope of the (9,8) JumpReLU design's own jump."""
    theta, gap = 0.1, 0.02
    fit = cached_fit(target("jumprelu", threshold=theta, gap=gap), (9, 8))
    assert fit.partial_fractions is not None
    return rational_transition(fit.partial_fractions, theta, gap, half_width)


@torch.no_grad()
def _preactivation_sample(teacher: SAE, x: Tensor) -> Tensor:
    """Pre-activations of the teacher's active entries and as many inactive ones, flat."""
    h = teacher.preactivations(x)
    z, _ = teacher.gate(h)
    active, rest = h[z != 0], h[z == 0]
    stride = max(1, len(rest) // max(1, len(active)))
    return torch.cat([active[:500_000], rest[::stride][:500_000]])


@torch.no_grad()
def _active_ratios(teacher: SAE, x: Tensor, threshold: Tensor) -> Tensor:
    """h/θ_j of active entries over a sample, flat."""
    ratios = teacher.preactivations(x[:CHUNK]) / threshold
    return ratios[ratios > 1]
