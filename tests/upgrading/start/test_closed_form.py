"""The closed-form shape: a known one comes back, none is worse than its start, and the scale alone is what it was."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from rational_sae.gates.hard import HardGate
from rational_sae.gates.rational import RationalGate, pack
from rational_sae.gates.rational_topk import RationalTopKGate
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.kernels import LINEAR, linear_basis, rational_value
from rational_sae.rational import cached_fit, target
from rational_sae.sae.model import SAE, Normalisation
from rational_sae.upgrading.start.closed_form import rescaled, solve_shape_

pytestmark = pytest.mark.usefixtures("selection")

D_IN, D_SAE, N = 24, 96, 3000


def make(mode: str, normalisation: Normalisation = "none") -> tuple[SAE, RationalGate]:
    fit = cached_fit(target("jumprelu", threshold=0.08, gap=0.02), (9, 8)).partial_fractions
    assert fit is not None
    rng = torch.Generator().manual_seed(0)
    W_dec = torch.nn.functional.normalize(torch.randn(D_SAE, D_IN, generator=rng), dim=-1)
    tau = torch.full((D_SAE,), 0.9)
    gate = RationalTopKGate(fit, tau / 0.3, tau, k=9) if mode == "topk" else HardGate(fit, tau / 0.3, tau)
    b_dec = 0.1 * torch.randn(D_IN, generator=rng)
    return SAE(W_dec.T, torch.zeros(D_SAE), W_dec, b_dec, gate, normalisation=normalisation), gate


@pytest.fixture
def x() -> Tensor:
    return torch.randn(N, D_IN, generator=torch.Generator().manual_seed(1))


def squared_error(sae: SAE, x: Tensor) -> float:
    with torch.no_grad():
        return float((x - sae(x)).pow(2).sum(dtype=torch.float64))


def test_the_basis_times_the_coefficients_is_the_rational() -> None:
    _, gate = make("hard")
    t = torch.linspace(-1.5, 2.0, 501)
    shape = gate.shape.detach().double()
    count = LINEAR + (len(shape) - LINEAR) // 2
    found = shape[:count] @ linear_basis(t.double(), shape)
    torch.testing.assert_close(found, rational_value(t.double(), shape), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("normalisation", ["none", "layer_norm"])
@pytest.mark.parametrize("mode", ["hard", "topk"])
def test_no_small_change_of_the_solved_coefficients_is_better(
    mode: str, normalisation: Normalisation, x: Tensor
) -> None:
    sae, gate = make(mode, normalisation)
    before = squared_error(sae, x)
    support = sae.encode(x) != 0
    solve_shape_(gate, sae, x)
    best = squared_error(sae, x)
    assert best < 0.999 * before
    assert torch.equal(sae.encode(x) != 0, support)
    solved = gate.shape.detach().clone()
    for index in range(LINEAR + (len(solved) - LINEAR) // 2):
        for step in (-0.02, 0.02):
            with torch.no_grad():
                gate.shape.copy_(solved)
                gate.shape[index] += step
            assert squared_error(sae, x) > best * (1 - 1e-6)


def test_a_shape_that_reconstructs_exactly_comes_back() -> None:
    """x is what the SAE with another shape reconstructs, from orthogonal latents."""
    sae, gate = make("hard")
    sae.W_enc.data, sae.W_dec.data = torch.eye(D_IN), torch.eye(D_IN)
    sae.b_enc.data, sae.b_dec.data = torch.zeros(D_IN), torch.zeros(D_IN)
    fit = cached_fit(target("jumprelu", threshold=0.08, gap=0.02), (9, 8)).partial_fractions
    assert fit is not None
    tau = torch.full((D_IN,), 1e-3)
    sae.gate = gate = HardGate(fit, torch.ones(D_IN), tau)
    x = torch.rand(4000, D_IN, generator=torch.Generator().manual_seed(2))
    solve_shape_(gate, sae, x)
    t = torch.linspace(0.01, 0.99, 99)
    assert float((rational_value(t, gate.shape.detach()) - t).abs().max()) < 2e-3
    assert gate.shape.shape == pack(fit, 1.0).shape


def test_the_rescaled_teacher_has_the_best_factor(x: Tensor) -> None:
    sae, _ = make("hard")
    teacher = sae.with_gate(ThresholdGate(torch.full((D_SAE,), 0.9)))
    best = rescaled(teacher, x)
    for factor in (0.99, 1.01):
        other = copy.deepcopy(best)
        other.W_dec.data *= factor
        assert squared_error(other, x) > squared_error(best, x)
