"""The formula that an SAE computes, in mathematics. Written from the SAE itself, so it cannot say anything else."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from rational_sae.gates.gate import RationalGate, ThresholdGate, TopKGate
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

MODES = {"hard": "0 elsewhere", "smooth": "nowhere cut", "topk": "0 elsewhere"}


def formula(sae: SAE) -> list[str]:
    """Lines: pre-activation, code, reconstruction and, where there is one, the normalisation."""
    inside = "n(x)" if sae.has_state else "x"
    if sae.apply_b_dec_to_input:
        inside = f"({inside} − b_dec)"
    out = "W_decᵀz + b_dec"
    lines = [
        f"h = W_encᵀ{inside} + b_enc",
        _code(sae),
        f"x̂ = n⁻¹({out})" if sae.has_state else f"x̂ = {out}",
    ]
    if sae.has_state:
        named = CENTRED if sae.centred else {}
        lines.append(named.get(sae.normalisation) or NORMALISATIONS[sae.normalisation])
    return lines


def _code(sae: SAE) -> str:
    gate = sae.gate
    if isinstance(gate, TopKGate):
        return f"z_j = max(h_j, 0) for the {gate.k} largest h of a token, 0 elsewhere"
    if isinstance(gate, ThresholdGate):
        return "z_j = h_j where h_j > θ_j, 0 elsewhere"
    if isinstance(gate, RationalGate):
        p, q = gate.coefficients.type
        where = {"hard": "where h_j > τ_j, ", "smooth": "", "topk": f"for the {gate.k} largest h > 0 of a token, "}
        code = f"c·s_j·r(h_j/s_j) {where[gate.mode]}{MODES[gate.mode]}; r = P/Q of type ({p}, {q})"
        if gate.token is None:
            return f"z_j = {code}"
        return f"z_j = κ·{code}, of h/κ; κ(x) = (u/ū)^{gate.token.power:g}, u the h/s of rank {gate.token.k}"
    return "z_j = max(h_j, 0)"


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
        "gate": type(sae.gate).__name__,
        **_gate_numbers(sae),
        "apply_b_dec_to_input": sae.apply_b_dec_to_input,
        "normalisation": sae.normalisation,
        "centred": sae.centred,
        "scaling": {
            "decoder_row_norm": _spread(sae.W_dec.norm(dim=-1)),
            "encoder_column_norm": _spread(sae.W_enc.norm(dim=0)),
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


def _gate_numbers(sae: SAE) -> dict[str, Any]:
    gate = sae.gate
    if isinstance(gate, TopKGate):
        return {"k": gate.k}
    if isinstance(gate, ThresholdGate):
        return {"threshold": _spread(gate.threshold) | {"zeros": int((gate.threshold == 0).sum())}}
    if isinstance(gate, RationalGate):
        return {
            "mode": gate.mode,
            "k": gate.k,
            "degrees": list(gate.coefficients.type),
            "gain": float(gate.log_gain.exp()),
            "right_slope": gate.right_slope,
            "token_scale": asdict(gate.token) if gate.token else None,
            "scale": _spread(gate.scale),
            "threshold": _spread(gate.threshold),
        }
    return {}


def _spread(values: Tensor) -> dict[str, float]:
    """Least, median and largest."""
    return {"min": float(values.min()), "median": float(values.median()), "max": float(values.max())}
