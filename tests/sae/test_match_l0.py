"""Matched sparsity: one shift of all thresholds brings L0 to a target."""

from __future__ import annotations

import pytest
import torch

from rational_sae.gates.base import Gate
from rational_sae.gates.hard import HardGate
from rational_sae.gates.relu import ReLUGate
from rational_sae.gates.smooth import SmoothGate
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.gates.topk import TopKGate
from rational_sae.rational import cached_fit, target
from rational_sae.sae.match_l0 import CHUNK, NEAR, can_match, can_shift, shifted, solve_shift
from rational_sae.sae.model import SAE

D_IN, D_SAE = 16, 96


def sae_with(gate: Gate) -> SAE:
    rng = torch.Generator().manual_seed(0)
    W_enc = torch.randn(D_IN, D_SAE, generator=rng)
    return SAE(W_enc, torch.zeros(D_SAE), W_enc.T / 8, torch.zeros(D_IN), gate)


def gates() -> dict[str, Gate]:
    shape = cached_fit(target("jumprelu", threshold=0.1, gap=0.02), (9, 8)).partial_fractions
    assert shape is not None
    threshold = torch.linspace(0.5, 2.0, D_SAE)
    return {
        "relu": ReLUGate(),
        "threshold": ThresholdGate(threshold),
        "some zero thresholds": ThresholdGate(threshold * (torch.arange(D_SAE) % 2)),
        "rational": HardGate(shape, 10 * threshold, threshold),
    }


@pytest.mark.parametrize("name", ["relu", "threshold", "some zero thresholds", "rational"])
@pytest.mark.parametrize("wanted", [2.0, 7.5, 20.0])
def test_the_solved_shift_gives_the_target_l0_exactly(name: str, wanted: float) -> None:
    sae = sae_with(gates()[name])
    x = torch.randn(4096, D_IN, generator=torch.Generator().manual_seed(1))
    before = sae.encode(x)
    with shifted(sae, solve_shift(sae, x, wanted)), torch.no_grad():
        assert float((sae.encode(x) != 0).sum() / len(x)) == pytest.approx(wanted, abs=2e-3)
    assert torch.allclose(sae.encode(x), before, atol=1e-4), "thresholds must be put back"


@pytest.mark.parametrize("name", ["relu", "threshold", "rational"])
def test_the_shift_is_exact_where_tokens_far_apart_differ_in_how_much_they_activate(name: str) -> None:
    sae = sae_with(gates()[name])
    loud = torch.randn(CHUNK, D_IN, generator=torch.Generator().manual_seed(1))
    x = torch.cat([loud, 0.01 * loud])  # the second half has nothing near a threshold
    with torch.no_grad():
        near = int((sae.gate.margin(sae.preactivations(loud)) > NEAR).sum())
        wanted = 1.2 * near / len(x)  # more than all that is near, fewer than 1.2 times that in the first half alone
        with shifted(sae, solve_shift(sae, x, wanted)):
            assert float((sae.encode(x) != 0).sum() / len(x)) == pytest.approx(wanted, abs=2e-3)


def test_topk_and_smooth_gates_cannot_be_shifted() -> None:
    shape = cached_fit(target("relu"), (3, 2)).partial_fractions
    assert shape is not None
    ones = torch.ones(D_SAE)
    assert not can_match(sae_with(TopKGate(4)))
    assert not can_shift(sae_with(TopKGate(4)))
    assert not can_shift(sae_with(SmoothGate(shape, ones, ones)))
    assert can_shift(sae_with(HardGate(shape, ones, ones)))


@pytest.mark.parametrize("wanted", [2.0, 20.0])
def test_a_smooth_gate_is_measured_by_its_largest_codes_and_then_cut_no_more(wanted: float) -> None:
    shape = cached_fit(target("relu"), (3, 2)).partial_fractions
    assert shape is not None
    scale = torch.linspace(5.0, 15.0, D_SAE)
    sae = sae_with(SmoothGate(shape, scale, torch.zeros(D_SAE), gain=1.3))
    x = torch.randn(512, D_IN, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = sae.encode(x)
        size = before.abs() / scale
        bar = size.flatten().topk(round(wanted * len(x))).values[-1]
        with shifted(sae, solve_shift(sae, x, wanted)):
            cut, l0 = sae.gate(sae.preactivations(x))
        assert torch.equal(cut, torch.where(size >= bar, before, 0.0))
        assert float(l0) == pytest.approx(wanted, abs=2e-3)
        assert torch.equal(sae.encode(x), before)
