"""An SAE as a plain JumpReLU, for tools that take no custom class: distilled on activations, its loss measured.

A JumpReLU can be any line on each latent's support: z = a_j·h + c_j where h > τ_j, written as a scaled and shifted
encoder. So a rational gate keeps its support exactly (or, under a per-token k, is given the one threshold with
the same mean L0), its magnitude becomes the line that fits its own codes best, and the decoder is fitted again to x.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from rational_sae.check.verify import verify
from rational_sae.data.reading import Reading, check_eval_tokens
from rational_sae.errors import SourceError
from rational_sae.evaluation import Results, evaluate_loaded, mean_l0
from rational_sae.formats import load
from rational_sae.gates.base import Gate
from rational_sae.gates.relu import ReLUGate
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.sae.match_l0 import CHUNK, solve_shift
from rational_sae.sae.model import SAE
from rational_sae.sae.refit_decoder import refit_decoder_
from rational_sae.support.progress import Progress, Silent

PRIOR = 10.0
"""Observations that the line of all latents together counts for in each latent's own (heuristic)."""


@dataclass(frozen=True)
class Distilled:
    """A JumpReLU SAE and what it lost."""

    sae: SAE
    results: Results | None = None
    """Rows `sae`, `lines` (the decoder kept) and `jumprelu` on test tokens; None where the conversion is exact."""


def distil(
    name: str,
    reading: Reading | None = None,
    *,
    eval_tokens: int = 16384,
    seed: int = 0,
    progress: Progress | None = None,
) -> Distilled:
    """The SAE of this name as a JumpReLU; its FVU and ΔCE beside the SAE's own on test tokens.

    reading: as for `evaluate`. Lines and decoder are fitted on `eval_tokens` of the train split; the decoder's stopping
    point is chosen on validation. A ReLU and a JumpReLU are converted exactly and read nothing.
    Raises RationalSAEError with a one-line reason if an input cannot be used.
    """
    check_eval_tokens(eval_tokens)
    progress = progress or Silent()
    progress.stage("load SAE and model")
    sae = load(name)
    if sae.transcodes:
        raise SourceError("only SAEs are distilled, and this is a transcoder", "keep the transcoder as it is")
    exact = exactly(sae)
    if exact is not None:
        return Distilled(exact)
    reader = (reading or Reading()).open(sae)
    progress.stage("fit lines and decoder")
    x, validation = reader.sample("train", eval_tokens), reader.sample("validation", max(1, eval_tokens // 2))
    verify(sae, validation)
    lines = fit_lines(sae, x)
    jumprelu = copy.deepcopy(lines)
    refit_decoder_(jumprelu, x, validation)
    rows = {"sae": sae, "lines": lines, "jumprelu": jumprelu}
    compare = [("lines", "sae"), ("jumprelu", "sae")]
    results = evaluate_loaded(
        reader, rows, compare, eval_tokens=eval_tokens, seed=seed, progress=progress, everywhere=()
    )
    jumprelu.metadata.extra["distilled"] = {
        "from": sae.gate.architecture,
        "fvu": results.rows["jumprelu"]["fvu"],
        "fvu_change": results.differences["jumprelu - sae"]["fvu"],
        "delta_ce_change": results.differences["jumprelu - sae"]["delta_ce"],
    }
    return Distilled(jumprelu, results)


def exactly(sae: SAE) -> SAE | None:
    """The SAE as a JumpReLU that computes the same; None if there is no such thing."""
    threshold = sae.gate.as_jumprelu(sae.d_sae)
    if threshold is None or sae.looks is not None:
        return None
    if sae.gate.family == "jumprelu":
        return sae
    sae = copy.deepcopy(sae)
    sae.fold_offset_()
    return _jumprelu(sae, threshold)


@torch.no_grad()
def fit_lines(sae: SAE, x: Tensor) -> SAE:
    """A JumpReLU whose codes are, latent by latent, the line nearest to the SAE's own codes in least squares.

    x: [n, d_in]. The decoder stays. Raises SourceError if the SAE has no exact zeros, so no thresholds.
    """
    gate = sae.gate
    if not gate.exact_zeros:
        raise SourceError(
            "a smooth gate is never exactly 0, so no JumpReLU has its support", "upgrade with --gate hard"
        )
    if sae.looks is not None:  # a JumpReLU has one: the best that one look can do at this L0 is what it is fitted to
        wanted, sae = mean_l0(sae, x), sae.with_gate(copy.deepcopy(gate))
        sae.gate.shift_(solve_shift(sae, x, wanted))
        gate = sae.gate
    magnitude, threshold = _magnitude(sae, x)
    scale = gate.scales() if gate.family == "rational" else torch.ones_like(threshold)
    moments = _moments(sae, magnitude, threshold, scale, x)
    slope, offset = _lines(moments, threshold / scale)
    result = copy.deepcopy(sae)
    result.W_enc *= slope
    result.b_enc.copy_(slope * result.b_enc + offset * scale)
    return _jumprelu(result, (slope * threshold + offset * scale).clamp_min(0.0))


def _jumprelu(sae: SAE, threshold: Tensor) -> SAE:
    return sae.with_gate(ThresholdGate(threshold))


def _magnitude(sae: SAE, x: Tensor) -> tuple[Gate, Tensor]:
    """What gives an active latent its code, and thresholds: [d_sae] of the same mean L0 over x."""
    gate = sae.gate.thresholded()
    if gate is None:
        cut = max(0.0, solve_shift(sae.with_gate(ReLUGate()), x, mean_l0(sae, x)))
        threshold = torch.full((sae.d_sae,), cut, device=sae.device)
        return sae.gate.under(threshold), threshold
    gate = copy.deepcopy(gate)
    if not sae.gate.lists_entries:  # more than its bar decides in a token: the bar with as many latents on average
        gate.shift_(solve_shift(sae.with_gate(gate), x, mean_l0(sae, x)))
    return gate, gate.threshold.detach()


def _moments(sae: SAE, magnitude: Gate, threshold: Tensor, scale: Tensor, x: Tensor) -> Tensor:
    """[5, d_sae] float64 sums over active entries of 1, t, z, t², tz, with t = h/s and z in units of s as well."""
    sums = torch.zeros(5, sae.d_sae, dtype=torch.float64, device=x.device)
    for part in x.split(CHUNK):
        h = sae.preactivations(part)
        places = (h > threshold).flatten().nonzero()[:, 0]
        latent, value = places % sae.d_sae, h.flatten()[places]
        z = magnitude.codes(value, latent, len(part))[0]
        t, z = (value / scale[latent]).double(), (z / scale[latent]).double()
        for total, one in zip(sums, (torch.ones_like(t), t, z, t * t, t * z), strict=True):
            total.index_add_(0, latent, one)
    return sums


def _lines(moments: Tensor, cut: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and offset: [d_sae] each, of the lines a·t + c that fit best among those ≥ 0 at the cut: [d_sae].

    Each latent's sums are joined by PRIOR observations of all latents together.
    """
    together = moments.sum(1, keepdim=True)
    n, t, z, tt, tz = moments + PRIOR * together / together[0].clamp_min(1.0)
    n = n.clamp_min(1e-12)
    spread = (tt - t * t / n).clamp_min(1e-12 * tt.clamp_min(1e-300))
    slope = ((tz - t * z / n) / spread).clamp_min(1e-3)
    offset = (z - slope * t) / n
    # Below 0 at the cut the line would lose support; the best one allowed is then 0 there: a·(t − cut).
    cut = cut.double()
    through = ((tz - cut * z) / (tt - 2 * cut * t + cut * cut * n).clamp_min(1e-300)).clamp_min(1e-3)
    negative = slope * cut + offset < 0
    slope = torch.where(negative, through, slope)
    return slope.float(), torch.where(negative, -through * cut, offset).float()
