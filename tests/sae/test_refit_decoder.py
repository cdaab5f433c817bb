"""A decoder fitted again by least squares: against the dense solution, under every kind of gate that has zeros."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from random_sae import D_SAE, WAVY, make, sample

from rational_sae.check.verify import reconstruction
from rational_sae.gates.hard import HardGate
from rational_sae.gates.rational_topk import RationalTopKGate
from rational_sae.gates.relu import ReLUGate
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.gates.token_scaled import TokenScale, TokenScaledGate
from rational_sae.gates.topk import TopKGate
from rational_sae.sae.refit_decoder import refit_decoder_

pytestmark = pytest.mark.usefixtures("selection")

SCALE = torch.full((D_SAE,), 4.0)
GATES: dict[str, Any] = {
    "rational": lambda: HardGate(WAVY, SCALE, 0.2 * SCALE, gain=1.3),
    "token scale": lambda: TokenScaledGate(WAVY, SCALE, 0.2 * SCALE, token=TokenScale(k=5, power=0.4, level=-1.0)),
    "rational topk": lambda: RationalTopKGate(WAVY, SCALE, 0.2 * SCALE, k=5),
    "jumprelu": lambda: ThresholdGate(torch.full((D_SAE,), 0.8)),
    "relu": ReLUGate,
    "topk": lambda: TopKGate(5),
}


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
def test_what_it_keeps_is_no_worse_on_validation() -> None:
    sae, x = make(GATES["rational"]()), sample()
    before = sae.W_dec.clone()
    validation = sae(sample(2))  # the SAE explains these exactly with this decoder
    refit_decoder_(sae, x, validation)
    least = reconstruction(sae, validation)[0]
    sae.W_dec.copy_(before)
    assert least <= reconstruction(sae, validation)[0] * (1 + 1e-6)
