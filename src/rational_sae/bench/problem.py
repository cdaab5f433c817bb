"""The made problem that every step is timed on: sparse codes through a random dictionary, read back.

Time depends on shapes and on how many entries are active or near their threshold, not on what the weights mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rational_sae.gates.base import Gate
from rational_sae.gates.registry import TRAINED
from rational_sae.gates.relu import ReLUGate
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.gates.topk import TopKGate
from rational_sae.gates.transition import rectangle
from rational_sae.rational import PartialFractions, cached_fit, target
from rational_sae.sae.candidates import EDGE, candidate_floor, least_unit, units
from rational_sae.sae.looks import Look, Looks
from rational_sae.sae.match_l0 import solve_shift
from rational_sae.sae.model import SAE

THRESHOLD = 0.08
"""θ₀ of the JumpReLU design, in t; its gap is a quarter of that."""

BAND = 0.2
"""Half-width of the band that passes gradient, relative to the threshold: what an upgrade uses."""

ALPHA = 0.5
"""The step of a second look, about what training arrives at."""

POOL = 4
"""Batches that steps take in turn."""


@dataclass(frozen=True)
class Shape:
    """What is timed."""

    d_in: int
    d_sae: int
    batch: int
    l0: int = 32
    poles: int = 2
    """Pairs of poles: type (2·poles + 1, 2·poles), by default that of an upgrade."""


@dataclass(frozen=True)
class Problem:
    """Weights, activations and the one threshold that gives the L0 asked for."""

    shape: Shape
    W_dec: Tensor
    """[d_sae, d_in], rows of norm 1; the encoder is its transpose."""
    x: Tensor
    """[POOL · batch, d_in]."""
    threshold: float

    def sae(self, kind: str) -> SAE:
        """An SAE on these weights. kind: `hard`, `two looks` of it, `smooth`, `threshold`, `relu` or `topk`, each of
        about the same L0."""
        d_in, d_sae = self.shape.d_in, self.shape.d_sae
        device = self.W_dec.device
        bias = torch.full((d_sae,), -self.threshold if kind == "relu" else 0.0, device=device)
        gate = self._gate("hard" if kind == "two looks" else kind).to(device)
        sae = SAE(self.W_dec.T, bias, self.W_dec, torch.zeros(d_in, device=device), gate)
        return self._looking_twice(sae) if kind == "two looks" else sae

    def _looking_twice(self, sae: SAE) -> SAE:
        x, least = self.x[: self.shape.batch], least_unit(sae)
        unit = units(sae, least)
        floor = candidate_floor(sae, unit, x, self.shape.l0)
        twice = sae.with_gate(
            sae.gate, Looks([Look(_shape(EDGE, self.shape.poles), ALPHA, cut=0.75 * EDGE)], floor, unit, least)
        )
        twice.gate.shift_(solve_shift(twice, x, self.shape.l0))
        return twice

    def _gate(self, kind: str) -> Gate:
        level = torch.full((self.shape.d_sae,), self.threshold, device=self.W_dec.device)
        if kind == "relu":
            return ReLUGate()
        if kind == "topk":
            return TopKGate(self.shape.l0)
        if kind == "threshold":
            return ThresholdGate(level, rectangle(BAND * level))
        fit = _shape(THRESHOLD, self.shape.poles)
        return TRAINED[kind](fit, level / THRESHOLD, level, transition=rectangle(BAND * level))


def _shape(threshold: float, poles: int) -> PartialFractions:
    degrees = 2 * poles + 1, 2 * poles
    fit = cached_fit(target("jumprelu", threshold=threshold, gap=threshold / 4), degrees).partial_fractions
    assert fit is not None
    return fit


def make_problem(shape: Shape, device: str = "cpu", seed: int = 0) -> Problem:
    """The problem of a shape, the same at every call."""
    rng = torch.Generator().manual_seed(seed)
    W_dec = torch.nn.functional.normalize(torch.randn(shape.d_sae, shape.d_in, generator=rng), dim=-1)
    n = POOL * shape.batch
    latent = torch.randint(shape.d_sae, (n, shape.l0), generator=rng)
    size = 1.0 + torch.empty(n, shape.l0).exponential_(generator=rng)
    x = torch.nn.functional.embedding_bag(latent, W_dec, per_sample_weights=size, mode="sum")
    x += 0.1 * torch.randn(n, shape.d_in, generator=rng) / shape.d_in**0.5
    W_dec, x = W_dec.to(device), x.to(device)
    plain = SAE(
        W_dec.T, torch.zeros(shape.d_sae, device=device), W_dec, torch.zeros(shape.d_in, device=device), ReLUGate()
    )
    return Problem(shape, W_dec, x, solve_shift(plain.to(device), x[: shape.batch], shape.l0))
