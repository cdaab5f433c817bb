"""If the stored formula looks wrong: the likely right one, found by trying the usual confusions on real activations.

The confusions are those of ECOSYSTEM's formats: b_dec subtracted or not; input centred (TransformerLens' centred
writing weights), scaled to mean norm √d_in, or layer-normalised; ReLU, TopK and a threshold taken for one another.
Every figure that is reported is measured. Which k or threshold is guessed says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rational_sae.gate import Gate, RationalGate, ReLUGate, ThresholdGate, TopKGate
from rational_sae.sae import SAE, Normalisation

TOKENS = 256
"""Tokens that each formula is tried on."""

GUESSED_L0 = (8, 16, 32, 64, 128, 256)
"""Sizes of a code to guess, where the files give no k: those that published SAEs have."""

BETTER, AS_SPARSE = 0.9, 1.5
"""An alternative counts if it leaves no more error, and error times L0 falls to this share or less, with at most so
many times the latents. For the demo teachers' right formulas the nearest alternative, centring, gives 1.0; b_dec or
scale confused gives .86 or less …"""

POOR_FVU, MUCH_BETTER, SPARSE = 0.5, 0.5, 0.1
"""… or, where the stored formula explains little, if half of its error is left with so few of all latents. One that
explains little itself never counts."""

SIMPLER = 1.5
"""Of the formulas that count, the one with the fewest changes among those within this factor of the least error."""


@dataclass(frozen=True)
class Figures:
    """One formula on real activations."""

    changes: tuple[str, ...]
    """How it differs from the stored one; empty for that one itself."""
    fvu: float
    l0: float

    def __str__(self) -> str:
        return f"{', '.join(self.changes) or 'as stored'}: FVU {self.fvu:.3f} at L0 {self.l0:.1f}"


@torch.no_grad()
def likely_formula(sae: SAE, x: Tensor, stored: Figures, *, gates: bool) -> Figures | None:
    """The formula that explains x: [n, d_in] clearly better than the stored one, or None.

    stored: figures of the SAE as it is. gates: whether to try other gates, too; it takes longer, and only makes sense
    where the stored gate's figures are absurd. All formulas are tried on at most TOKENS tokens.
    """
    x = x[:: max(1, len(x) // TOKENS)][:TOKENS].float()
    found = [one for one in _tried(sae, x, gates=gates) if _counts(one, stored, sae.d_sae)]
    if not found:
        return None
    least = min(one.fvu for one in found)
    return min((one for one in found if one.fvu <= SIMPLER * least), key=lambda one: (len(one.changes), one.fvu))


def _counts(one: Figures, stored: Figures, d_sae: int) -> bool:
    if not one.changes or one.l0 == 0 or not one.fvu <= POOR_FVU:
        return False
    fvu = stored.fvu if stored.fvu == stored.fvu else float("inf")
    fewer = one.fvu <= fvu and one.l0 <= AS_SPARSE * stored.l0 and one.fvu * one.l0 <= BETTER * fvu * stored.l0
    rescued = fvu > POOR_FVU and one.fvu <= MUCH_BETTER * fvu and one.l0 <= SPARSE * d_sae
    return fewer or rescued


def _tried(sae: SAE, x: Tensor, *, gates: bool) -> Iterator[Figures]:
    """Figures of every combination of the confusions, the stored formula among them."""
    trial = sae.with_gate(sae.gate)  # its own flags and gate; the weights are copied once
    for said, change in _inputs(sae, x).items():
        given = change(x)
        for flipped in (False, True):
            trial.apply_b_dec_to_input = sae.apply_b_dec_to_input != flipped
            b_dec = ("b_dec not subtracted" if sae.apply_b_dec_to_input else "b_dec subtracted",) if flipped else ()
            # A layer norm undoes centring and scaling by itself.
            for normalisation in (sae.normalisation,) if said else _normalisations(sae):
                trial.normalisation = normalisation
                norm = () if normalisation == sae.normalisation else (f"normalisation {normalisation}",)
                h = trial.preactivations(given)
                for gate_said, gate in _gates(sae, h) if gates else [("", sae.gate)]:
                    changes = tuple(filter(None, (said, *b_dec, *norm, gate_said)))
                    yield _figures(trial, given, h, gate, changes)


def _inputs(sae: SAE, x: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    inputs: dict[str, Callable[[Tensor], Tensor]] = {"": lambda x: x}
    if sae.normalisation == "none":
        inputs["x centred over d_in"] = _centred
        inputs["x scaled to mean norm √d_in"] = _scaled
        inputs["x centred over d_in and scaled to mean norm √d_in"] = lambda x: _scaled(_centred(x))
    return inputs


def _centred(x: Tensor) -> Tensor:
    return x - x.mean(-1, keepdim=True)


def _scaled(x: Tensor) -> Tensor:
    return x * (x.shape[-1] ** 0.5 / x.norm(dim=-1).mean())


def _normalisations(sae: SAE) -> tuple[Normalisation, ...]:
    return ("none", "layer_norm") if sae.normalisation == "none" else (sae.normalisation, "none")


def _gates(sae: SAE, h: Tensor) -> Iterator[tuple[str, Gate]]:
    """The stored gate, and others that it may have been taken for. h: [n, d_sae]."""
    yield "", sae.gate
    if isinstance(sae.gate, RationalGate):
        return
    if not isinstance(sae.gate, ReLUGate):
        yield "ReLU", ReLUGate()
    known = sae.metadata.extra.get("k")
    sizes = [known] if isinstance(known, int) and 0 < known <= sae.d_sae else GUESSED_L0
    guess = "" if known in sizes else ", a guess"
    for size in sizes:
        if size > sae.d_sae // 4 and guess:
            continue
        yield f"TopK (k = {size}{guess})", TopKGate(size)
        threshold = float(h.flatten().topk(size * len(h)).values[-1])
        if threshold > 0:
            yield f"a threshold (near {threshold:.3g}, a guess)", ThresholdGate(torch.full_like(h[0], threshold))


def _figures(trial: SAE, x: Tensor, h: Tensor, gate: Gate, changes: tuple[str, ...]) -> Figures:
    z, _ = gate(h)
    error = x - trial.decode(z, trial.normalise(x)[1])
    seen = trial.seen(x)
    fvu = float(error.pow(2).sum(dtype=torch.float64) / (seen - seen.mean(0)).pow(2).sum(dtype=torch.float64))
    return Figures(changes, fvu, float((z != 0).sum()) / len(x))
