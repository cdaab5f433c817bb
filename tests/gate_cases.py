"""One SAE of every gate, for tests of what is written and read."""

from __future__ import annotations

from typing import Any

import torch
from random_sae import gate_of_mode
from torch import Tensor

from rational_sae.gates.base import Gate
from rational_sae.gates.rational import RationalGate
from rational_sae.gates.relu import ReLUGate
from rational_sae.gates.safe_pade import SafePadeGate
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.gates.token_scaled import TokenScale
from rational_sae.gates.topk import TopKGate
from rational_sae.rational import PartialFractions, SafePade
from rational_sae.sae.model import SAE

D_IN, D_SAE = 13, 37
WAVY = PartialFractions(0.03, 0.9, alpha=[0.02, -0.03], beta=[0.04, 0.02], x=[0.2, 0.5], eta=[-1.5, -1.0])
KINKED = SafePade([0.02, 0.6, 0.9, -0.4], [0.7, 1.5], 0.1)  # |S| is 0 at two points of [−1, 1]
FALLING = PartialFractions(0.1, -1.0, alpha=[], beta=[], x=[], eta=[])


def scale() -> Tensor:
    return 2.0 + torch.rand(D_SAE, generator=torch.Generator().manual_seed(3))


def shifted_relu() -> ReLUGate:
    gate = ReLUGate()
    gate.shift_(0.3)
    return gate


def rational_gate(mode: Any, shape: PartialFractions = WAVY, **options: Any) -> RationalGate:
    options = {"gain": 1.3, "right_slope": 0.8, "k": 5 if mode == "topk" else None} | options
    return gate_of_mode(mode, shape, scale(), 0.3 * scale(), **options)


GATES = {
    "relu": ReLUGate,
    "shifted relu": shifted_relu,
    "threshold": lambda: ThresholdGate(0.5 * scale()),
    "topk": lambda: TopKGate(5),
    "hard": lambda: rational_gate("hard"),
    "token scale": lambda: rational_gate("hard", token=TokenScale(k=6, power=0.4, level=-1.0)),
    "rational topk": lambda: rational_gate("topk"),
    "smooth": lambda: rational_gate("smooth"),
    "safe-Padé": lambda: SafePadeGate(KINKED, scale(), 0.3 * scale(), gain=1.3, right_slope=0.8),
    "pole-free": lambda: rational_gate("hard", PartialFractions(0.0, 1.0, alpha=[], beta=[], x=[], eta=[])),
}


def make(gate: Gate, **options: Any) -> SAE:
    generator = torch.Generator().manual_seed(0)
    shapes = [(D_IN, D_SAE), (D_SAE,), (D_SAE, D_IN), (D_IN,)]
    return SAE(*(torch.randn(shape, generator=generator) for shape in shapes), gate=gate, **options)


def batch() -> Tensor:
    return 1.5 * torch.randn(257, D_IN, generator=torch.Generator().manual_seed(1))
