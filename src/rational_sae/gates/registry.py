"""Every gate that can be trained, by its name. A new one: its file, and its line in TRAINED."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from rational_sae.gates.base import Numbers
from rational_sae.gates.hard import HardGate
from rational_sae.gates.rational import RationalGate
from rational_sae.gates.rational_topk import RationalTopKGate
from rational_sae.gates.safe_pade import SafePadeGate
from rational_sae.gates.smooth import SmoothGate
from rational_sae.gates.token_scaled import TokenScaledGate

TRAINED: dict[str, type[RationalGate]] = {kind.mode: kind for kind in (HardGate, SmoothGate, RationalTopKGate)}
"""By `mode`, as `--gate` and cfg.json call them."""

VARIANTS: tuple[type[RationalGate], ...] = (SafePadeGate, TokenScaledGate)
"""What cfg.json tells apart within a mode, by more of its numbers."""


def kind_of(config: Numbers) -> type[RationalGate]:
    """Which gate a config speaks of. Raises what `config.wrong` makes if it has none that is known."""
    if not isinstance(config.numbers.get("coefficients"), dict):
        raise config.wrong("coefficients", "an object")
    kinds = [kind for kind in (*VARIANTS, *TRAINED.values()) if kind.reads(config.numbers)]
    if not kinds:
        *most, last = TRAINED
        raise config.wrong("mode", f"{', '.join(most)} or {last}")
    return kinds[0]


def from_config(config: Numbers, tensors: Mapping[str, Tensor]) -> RationalGate:
    """The gate of an SAE whose architecture is "rational", as `to_config` and `tensors` of it gave.

    tensors: threshold and scale, [d_sae] float32 each. Raises FitError if the coefficients do not go with the mode, and
    what `config.wrong` makes if a number is missing or wrong.
    """
    return kind_of(config).from_config(config, tensors)
