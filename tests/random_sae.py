"""A small SAE of random weights under any gate, and activations for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rational_sae.gates.base import Gate
from rational_sae.gates.rational import RationalGate
from rational_sae.gates.registry import TRAINED
from rational_sae.gates.token_scaled import TokenScaledGate
from rational_sae.rational import PartialFractions
from rational_sae.sae.model import SAE

D_IN, D_SAE = 12, 30
WAVY = PartialFractions(0.03, 0.9, alpha=[0.02, -0.03], beta=[0.06, 0.04], x=[0.2, 0.5], eta=[-1.5, -1.0])


def make(gate: Gate, **options: Any) -> SAE:
    generator = torch.Generator().manual_seed(0)
    shapes = [(D_IN, D_SAE), (D_SAE,), (D_SAE, D_IN), (D_IN,)]
    return SAE(*(0.4 * torch.randn(shape, generator=generator) for shape in shapes), gate=gate, **options)


def sample(seed: int = 1) -> Tensor:
    return 1.5 * torch.randn(4000, D_IN, generator=torch.Generator().manual_seed(seed))


def gate_of_mode(mode: str, shape: PartialFractions, scale: Tensor, threshold: Tensor, **options: Any) -> RationalGate:
    """A rational gate of a mode, with options that it has; `k` may be None, and `token` makes it one of earlier
    versions."""
    kind = TokenScaledGate if "token" in options else TRAINED[mode]
    given = {name: value for name, value in options.items() if value is not None and (name != "k" or mode == "topk")}
    return kind(shape, scale, threshold, **given)
