"""What a reader of the result must know: a line each, from one small function each."""

from __future__ import annotations

from rational_sae.gates.smooth import SMOOTH_EPSILON
from rational_sae.sae.match_l0 import can_match
from rational_sae.upgrading.pilots import FACTORS, Pilot
from rational_sae.upgrading.settings import Settings
from rational_sae.upgrading.train.candidate import Candidate

MISSED_L0 = 0.01
"""Relative. Thresholds are solved to one code in all of the validation tokens, far within this; and from one sample of
tokens to the next the mean L0 moves by about as much (TOKEN_SPREAD over √tokens at 1 600 tokens)."""


def of_pilots(found: dict[str, Pilot]) -> list[str]:
    """One line for each control that kept its start at its own learning rates."""
    factors = ", ".join(f"×{factor:g}" for factor in FACTORS)
    return [
        f"{name}: no step was better than its start, nor at learning rates {factors}"
        if one.chosen is None
        else f"{name}: no step was better than its start, so it was trained again at learning rates ×{one.chosen:g}"
        for name, one in found.items()
    ]


def of_training(candidates: dict[str, Candidate], target_l0: float, settings: Settings) -> list[str]:
    """Everything that training itself gives reason to say. settings: resolved."""
    return [
        *skipped_steps(candidates),
        *missed_l0(candidates, target_l0, settings),
        *revived_latents(candidates),
        *smooth_gate(settings),
    ]


def smooth_gate(settings: Settings) -> list[str]:
    """What a reader of a smooth gate's figures must know."""
    if settings.gate != "smooth":
        return []
    return [
        f"a smooth gate is never exactly 0: l0_eps counts |z| > {SMOOTH_EPSILON:g}·s, and figures at the teacher's L0 "
        "are of as many codes, those of the largest |z|/s, with all others dropped"
    ]


def missed_l0(candidates: dict[str, Candidate], target_l0: float, settings: Settings) -> list[str]:
    """One warning for each row whose kept step is not of the L0 that was to be held, on the validation tokens that its
    thresholds were solved on: there the two agree but for ties and for what a gate cannot do."""
    if not settings.hold_l0:
        return []
    missed = []
    for name, candidate in candidates.items():
        reached = dict(zip(candidate.validation["step"], candidate.validation["l0"], strict=True))[candidate.kept_step]
        if can_match(candidate.sae) and abs(reached / target_l0 - 1) > MISSED_L0:
            missed.append(f"{name}: L0 is {reached:.1f} on validation, {target_l0:.1f} was to be held")
    return missed


def skipped_steps(candidates: dict[str, Candidate]) -> list[str]:
    """One warning for each candidate that skipped steps."""
    return [
        f"{name}: {candidate.skipped} steps were skipped, because something was NaN or infinite "
        f"({', '.join(sorted(set(candidate.curve.reason)))})"
        for name, candidate in candidates.items()
        if candidate.skipped
    ]


def revived_latents(candidates: dict[str, Candidate]) -> list[str]:
    """What the RSAE's reader should know of latents that mean something else now."""
    count = len(candidates["rsae"].kept_revived)
    if not count:
        return []
    return [f"latents that were silent early in training and got new directions: {count}; their old labels are void"]
