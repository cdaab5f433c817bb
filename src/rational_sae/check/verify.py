"""Verified loading: an SAE must explain real activations before anything is spent on it.

A teacher read with the wrong formula looks like an easy win (docs/formats.md has the usual confusions).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rational_sae.check.alternatives import Figures, likely_formula
from rational_sae.errors import ImplausibleSAEError
from rational_sae.sae.match_l0 import CHUNK
from rational_sae.sae.model import SAE

REFUSED_FVU, WARNED_FVU = 0.9, 0.5
"""Worse than predicting almost nothing, and poor. Published residual SAEs lie between .05 and .4."""

REFUSED_DENSITY = 0.5
"""Share of latents active on an average token above which the code is not sparse at all."""


CHECK = "check --model, --hook and --bos against how it was trained"
CHECK_VECTORS = "give vectors of the layer that it was trained on, scaled as they were then"


@dataclass(frozen=True)
class Verification:
    """What an SAE does on real activations."""

    fvu: float
    l0: float
    warnings: tuple[str, ...]
    out_of_range: float | None = None
    """Of a rational gate: share of active pre-activations right of its fitted interval, h_j > s_j."""
    likely: Figures | None = None
    """The formula that explains the activations clearly better than the stored one, if any of the usual ones does."""


def verify(sae: SAE, x: Tensor, *, accept_implausible: bool = False, remedy: str = CHECK) -> Verification:
    """FVU, L0 and share out of range on x: [n, d_in], with warnings; names the likely formula if the stored one looks
    wrong. Raises ImplausibleSAEError on nonsense unless `accept_implausible`; remedy: what to do then."""
    fvu, l0 = reconstruction(sae, x)
    problem = _problem(sae, fvu, l0)
    likely = None if sae.transcodes else likely_formula(sae, x)
    if problem and not accept_implausible:
        raise ImplausibleSAEError(
            f"this SAE does not explain the activations it is given: {problem}",
            f"the formula may be wrong; likely: {likely}" if likely else remedy,
        )
    warnings = [problem] if problem else []
    if likely:
        warnings.append(f"the stored formula gives FVU {fvu:.3f} at L0 {l0:.1f}; likely is {likely}")
    elif not problem and fvu > WARNED_FVU:
        warnings.append(f"the SAE explains little of these activations (FVU {fvu:.3f}); check hook, model and scaling")
    return Verification(fvu, l0, tuple(warnings), out_of_range(sae, x), likely)


@torch.no_grad()
def reconstruction(sae: SAE, x: Tensor) -> tuple[float, float]:
    """FVU, of what the SAE sees of x, and L0 over x: [n, d_in]."""
    squared, active = 0.0, 0
    for part in x.split(CHUNK):
        x_hat, z, _ = sae.outputs(part)
        squared += float((sae.target(part) - x_hat).pow(2).sum(dtype=torch.float64))
        active += int((z != 0).sum())
    seen = sae.target(sae.seen(x))
    return squared / float((seen - seen.mean(0)).pow(2).sum(dtype=torch.float64)), active / len(x)


@torch.no_grad()
def out_of_range(sae: SAE, x: Tensor) -> float | None:
    """Share of a rational gate's active pre-activations over x: [n, d_in] with h_j > s_j; None for other gates."""
    beyond = active = 0
    for part in x.split(CHUNK):
        h = sae.preactivations(part)
        outside = sae.gate.out_of_range(h)
        if outside is None:
            return None
        on = sae.gate(h)[0] != 0
        beyond += int((on & outside).sum())
        active += int(on.sum())
    return beyond / active if active else 0.0


def _problem(sae: SAE, fvu: float, l0: float) -> str:
    if not fvu < REFUSED_FVU:
        return f"FVU {fvu:.3g} at L0 {l0:.1f}"
    if l0 > REFUSED_DENSITY * sae.d_sae:
        return f"L0 {l0:.0f} of {sae.d_sae} latents"
    if l0 == 0:
        return "no latent is ever active"
    return ""
