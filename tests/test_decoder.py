"""A decoder fitted again by least squares: against the dense solution, under every kind of gate that has zeros."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rational_sae.decoder import refit_decoder_
from rational_sae.gate import Gate, RationalGate, ReLUGate, ThresholdGate, TopKGate
from rational_sae.rational import PartialFractions
from rational_sae.sae import SAE
from rational_sae.sources.verify import reconstruction
from rational_sae.token_scale import TokenScale

D_IN, D_SAE = 12, 30
WAVY = PartialFractions(0.03, 0.9, alpha=[0.02, -0.03], beta=[0.06, 0.04], x=[0.2, 0.5], eta=[-1.5, -1.0])
SCALE = torch.full((D_SAE,), 4.0)
GATES: dict[str, Any] = {
    "rational": lambda: RationalGate(WAVY, SCALE, 0.2 * SCALE, gain=1.3),
    "token scale": lambda: RationalGate(WAVY, SCALE, 0.2 * SCALE, token=TokenScale(k=5, power=0.4, level=-1.0)),
    "rational topk": lambda: RationalGate(WAVY, SCALE, 0.2 * SCALE, mode="topk", k=5),
    "jumprelu": lambda: ThresholdGate(torch.full((D_SAE,), 0.8)),
    "relu": ReLUGate,
    "topk": lambda: TopKGate(5),
}


def make(gate: Gate, **options: Any) -> SAE:
    generator = torch.Generator().manual_seed(0)
    shapes = [(D_IN, D_SAE), (D_SAE,), (D_SAE, D_IN), (D_IN,)]
    return SAE(*(0.4 * torch.randn(shape, generator=generator) for shape in shapes), gate=gate, **options)


def sample(seed: int = 1) -> Tensor:
    return 1.5 * torch.randn(4000, D_IN, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("normalisation", ["none", "constant_norm_rescale", "layer_norm"])
@pytest.mark.parametrize("gate", GATES.values(), ids=GATES)
@torch.no_grad()
def test_it_nears_the_least_squares_decoder_and_is_what_it_says(gate: Any, normalisation: Any) -> None:
    sae, x, validation = make(gate(), normalisation=normalisation), sample(), sample(2)
    kept = {name: value.clone() for name, value in sae.state_dict().items() if name != "W_dec"}
    before = reconstruction(sae, validation)[0]
    found = refit_decoder_(sae, x, validation)
    assert found == pytest.approx(reconstruction(sae, validation)[0], rel=1e-5)
    assert found < before
    assert all(torch.equal(sae.state_dict()[name], value) for name, value in kept.items())
    # The least-squares decoder of these very codes is a bound on the training tokens, and nearly reached.
    state = sae.normalise(x)[1]
    z = sae.encode(x) if state is None else sae.encode(x) * state.scale
    shift = sae.decode(torch.zeros(len(x), D_SAE), state)
    least = torch.linalg.lstsq(z, x - shift).solution
    bound = float((x - shift - z @ least).pow(2).sum() / (x - x.mean(0)).pow(2).sum())
    reached = reconstruction(sae, x)[0]
    assert bound <= reached * (1 + 1e-5)
    assert reached <= 1.01 * bound


@torch.no_grad()
def test_a_second_time_it_finds_nothing_better() -> None:
    sae, x, validation = make(GATES["rational"]()), sample(), sample(2)
    once = refit_decoder_(sae, x, validation)
    assert refit_decoder_(sae, x, validation) == pytest.approx(once, rel=1e-4)


@torch.no_grad()
def test_where_validation_gets_worse_at_once_nothing_moves() -> None:
    sae, x = make(GATES["rational"]()), sample()
    before = sae.W_dec.clone()
    validation = sae(sample(2))  # the SAE explains these exactly with this decoder
    refit_decoder_(sae, x, validation)
    least = reconstruction(sae, validation)[0]
    sae.W_dec.copy_(before)
    assert least <= reconstruction(sae, validation)[0] * (1 + 1e-6)
