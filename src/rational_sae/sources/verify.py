"""Verified loading: an SAE must explain real activations before anything is spent on it.

A teacher read with the wrong formula looks like an easy win (ECOSYSTEM: the field's most common silent error).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rational_sae.errors import ImplausibleSAEError
from rational_sae.matched import CHUNK
from rational_sae.sae import SAE

REFUSED_FVU, WARNED_FVU = 0.9, 0.5
"""Worse than predicting almost nothing, and poor. Published residual SAEs lie between .05 and .4."""

REFUSED_DENSITY = 0.5
"""Share of latents active on an average token above which the code is not sparse at all."""


@dataclass(frozen=True)
class Verification:
    """What an SAE does on real activations."""

    fvu: float
    l0: float
    warnings: tuple[str, ...]


def verify(sae: SAE, x: Tensor, *, force: bool = False) -> Verification:
    """FVU and L0 on x: [n, d_in], with warnings; raises ImplausibleSAEError on nonsense unless `force`."""
    fvu, l0 = reconstruction(sae, x)
    problem = _problem(sae, fvu, l0)
    if problem and not force:
        raise ImplausibleSAEError(
            f"this SAE does not explain the activations it is given: {problem}",
            "check --model, --hook and --bos against how it was trained; --force goes on all the same",
        )
    warnings = [problem] if problem else []
    if not problem and fvu > WARNED_FVU:
        warnings.append(f"the SAE explains little of these activations (FVU {fvu:.3f}); check hook, model and scaling")
    return Verification(fvu, l0, tuple(warnings))


@torch.no_grad()
def reconstruction(sae: SAE, x: Tensor) -> tuple[float, float]:
    """FVU and L0 over x: [n, d_in]."""
    squared, active = 0.0, 0
    for part in x.split(CHUNK):
        x_hat, z, _ = sae.outputs(part)
        squared += float((part - x_hat).pow(2).sum(dtype=torch.float64))
        active += int((z != 0).sum())
    return squared / float((x - x.mean(0)).pow(2).sum(dtype=torch.float64)), active / len(x)


def _problem(sae: SAE, fvu: float, l0: float) -> str:
    if not fvu < REFUSED_FVU:
        return f"FVU {fvu:.3g} at L0 {l0:.1f}"
    if l0 > REFUSED_DENSITY * sae.d_sae:
        return f"L0 {l0:.0f} of {sae.d_sae} latents"
    if l0 == 0:
        return "no latent is ever active"
    return ""
