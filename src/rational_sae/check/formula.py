"""The formula that an SAE computes, in mathematics. Written from the SAE itself, so it cannot say anything else."""

from __future__ import annotations

from typing import Any

import torch

from rational_sae.gates.base import spread
from rational_sae.sae.model import LAYER_NORM_EPSILON, SAE

NORMALISATIONS = {
    "layer_norm": f"n(x) = (x − μ)/(σ + {LAYER_NORM_EPSILON:g}), n⁻¹(y) = σ·y + μ; μ, σ over d_in, σ with d_in − 1",
    "constant_norm_rescale": "n(x) = x·√d_in/‖x‖, n⁻¹(y) = y·‖x‖/√d_in",
}

CENTRED = {
    "none": "n(x) = x − μ, n⁻¹(y) = y + μ; μ = mean(x) over d_in (trained on centred writing weights)",
    "constant_norm_rescale": "n(x) = (x − μ)·√d_in/‖x − μ‖, n⁻¹(y) = y·‖x − μ‖/√d_in + μ; μ = mean(x) over d_in",
}
"""The same for an SAE that was trained on centred writing weights; a layer norm centres by itself."""


def formula(sae: SAE) -> list[str]:
    """Lines: pre-activation, code, reconstruction and, where there is one, the normalisation."""
    inside = "n(x)" if sae.has_state else "x"
    if sae.apply_b_dec_to_input:
        inside = f"({inside} − b_dec)"
    out = "W_decᵀz + b_dec"
    lines = [
        f"h = W_encᵀ{inside} + b_enc",
        *_looks(sae, inside),
        sae.gate.formula(),
        f"x̂ = n⁻¹({out})" if sae.has_state else f"{'ŷ' if sae.transcodes else 'x̂'} = {out}{_skip(sae)}",
    ]
    if sae.has_state:
        named = CENTRED if sae.centred else {}
        lines.append(named.get(sae.normalisation) or NORMALISATIONS[sae.normalisation])
    return lines


def _skip(sae: SAE) -> str:
    return "" if sae.W_skip is None else " + W_skip x"


def _looks(sae: SAE, inside: str) -> list[str]:
    """Lines between the first pre-activation and the code, where the encoder looks again."""
    if sae.looks is None:
        return []
    plain = "n(x)" if sae.has_state else "x"
    rest = inside if sae.apply_b_dec_to_input else f"({plain} − b_dec)"
    lines = []
    for number, look in enumerate(sae.looks, 1):
        p, q = look.coefficients.type
        lines.append(
            f"ẑ_j = u_j·r(h_j/u_j) where h_j > {float(look.cut):.3g}·u_j, 0 elsewhere; r = P/Q of type ({p}, {q}); "
            f"then h ← h + {float(look.alpha.detach()):.3g}·W_encᵀ({rest} − W_decᵀẑ) where the first h_j > "
            f"{float(sae.looks.floor):.3g}·u_j  (look {number + 1} of {len(sae.looks)})"
        )
    return lines


@torch.no_grad()
def facts(sae: SAE) -> dict[str, Any]:
    """What `rsae inspect` shows: where the SAE is from, its formula, shapes, scaling and training metadata."""
    known = sae.metadata
    return {
        "family": known.family,
        "format": known.format,
        "source": known.source,
        "formula": formula(sae),
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        **({"d_out": sae.d_out, "hook_name_out": known.hook_name_out} if sae.transcodes else {}),
        "gate": type(sae.gate).__name__,
        **sae.gate.facts(),
        "apply_b_dec_to_input": sae.apply_b_dec_to_input,
        "normalisation": sae.normalisation,
        "centred": sae.centred,
        "scaling": {
            "decoder_row_norm": spread(sae.W_dec.norm(dim=-1)),
            "encoder_column_norm": spread(sae.W_enc.norm(dim=0)),
            "b_dec_norm": float(sae.b_dec.norm()),
        },
        "model_name": known.model_name,
        "hook_name": known.hook_name,
        "context_size": known.context_size,
        "prepend_bos": known.prepend_bos,
        "seqpos_slice": known.seqpos_slice,
        "training": known.extra,
        "warnings": known.warnings,
    }
