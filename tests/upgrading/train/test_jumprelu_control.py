"""What the JumpReLU control may be trained with, beside SAELens' own functions of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rational_sae.gates.threshold import ThresholdGate
from rational_sae.gates.transition import rectangle
from rational_sae.sae.model import SAE
from rational_sae.sae.sparse import reconstruct
from rational_sae.upgrading.settings import Settings
from rational_sae.upgrading.train.candidate import Candidate

jumprelu_sae = pytest.importorskip("sae_lens.saes.jumprelu_sae")

D_IN, D_SAE, N, L0 = 12, 40, 300, 5.0
BANDWIDTH = 0.4


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def control(*, to_input: bool = False, **options: object) -> Candidate:
    W_dec = torch.nn.functional.normalize(drawn(D_SAE, D_IN, seed=0), dim=-1)
    transition = replace(rectangle(torch.full((D_SAE,), BANDWIDTH / 2)), to_input=to_input)
    gate = ThresholdGate(torch.full((D_SAE,), 1.0), transition)
    sae = SAE(W_dec.T, torch.zeros(D_SAE), 0.7 * W_dec, torch.zeros(D_IN), gate)
    settings = Settings.model_validate({"teacher": "made", "controls": (), **options})
    return Candidate("control_jumprelu", sae, settings, 2 * drawn(N, D_IN, seed=1), L0)


@pytest.mark.parametrize("to_input", [False, True])
def test_gradients_of_codes_are_those_of_saelens(to_input: bool) -> None:
    gate = control(to_input=to_input).sae.gate
    h, along = drawn(50, D_SAE, seed=2), drawn(50, D_SAE, seed=3)
    ours = h.clone().requires_grad_()
    z, _ = gate(ours)
    z.backward(along)
    theirs, threshold = h.clone().requires_grad_(), gate.threshold.detach().clone().requires_grad_()
    jumprelu_sae.JumpReLU.apply(theirs, threshold, BANDWIDTH, to_input).backward(along)
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-6)  # type: ignore[arg-type]
    assert torch.allclose(gate.threshold.grad, threshold.grad, atol=1e-4)  # type: ignore[arg-type]
    active = h > 1.0
    assert bool((theirs.grad[~active] != 0).any()) == to_input  # type: ignore[index]


def test_the_tanh_penalty_is_saelens_relative_to_the_l0() -> None:
    one = control(jumprelu_penalty="tanh")
    x = one.calibration_x
    z = one.sae.encode(x).detach()
    theirs = torch.tanh(4.0 * z * one.sae.W_dec.norm(dim=1)).sum(-1).mean().detach() / L0
    for sparse in (False, True):
        found = reconstruct(one.sae, x, sparse=sparse)
        assert float(one.objective.penalty(found, len(x)).detach()) == pytest.approx(float(theirs), rel=1e-5)
    assert 0.5 < float(theirs) < 5


@pytest.mark.parametrize(("penalty", "to_input"), [("tanh", False), ("l1", False), (None, True)])
def test_it_trains_and_holds_its_l0(penalty: str | None, to_input: bool) -> None:
    one = control(to_input=to_input, steps=60, jumprelu_penalty=penalty)
    x = one.calibration_x
    for number in range(1, 61):
        one.step(x, 0.5, number)
        if number in (1, 60):
            one.validate(x, number)
    assert not one.skipped
    assert one.validation["fvu"][-1] < 0.9 * one.validation["fvu"][0]
    assert one.curve.l0[-1] == pytest.approx(L0, rel=0.15)


def test_only_the_jumprelu_control_has_its_settings() -> None:
    one = control(jumprelu_penalty="tanh")
    other = Candidate("control_native", one.sae, one.settings, one.calibration_x, L0)
    assert (one.objective.penalises, other.objective.penalises) == ("tanh", "l0")
