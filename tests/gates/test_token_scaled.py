"""A gate of earlier versions: the scale of a token, its bounds, and what it does to codes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rational_sae.gates.hard import HardGate
from rational_sae.gates.token_scaled import WIDEST, TokenScale, TokenScaledGate
from rational_sae.gates.transition import rectangle
from rational_sae.kernels.selection import kth_largest
from rational_sae.rational import cached_fit, target
from rational_sae.sae.match_l0 import solve_shift
from rational_sae.sae.model import SAE

pytestmark = pytest.mark.usefixtures("selection")

D_IN, D_SAE, N, K = 12, 40, 64, 5


@pytest.fixture
def t() -> Tensor:
    return torch.randn(N, D_SAE, generator=torch.Generator().manual_seed(0)).exp()


def test_the_kth_largest_is_what_sorting_finds(t: Tensor) -> None:
    for k in (1, 2, K, D_SAE):
        assert torch.equal(kth_largest(t, k), t.sort(-1, descending=True).values[:, k - 1])


def test_a_scale_grows_with_the_token(t: Tensor) -> None:
    scale = TokenScale(K, 0.5, float(kth_largest(t, K).log().mean()))
    c = scale.of(t)
    assert c.shape == (N, 1)
    assert torch.allclose(scale.of(1.2 * t), c * 1.2**0.5, rtol=1e-5)


def test_a_token_with_nothing_near_its_bar_keeps_a_bounded_scale(t: Tensor) -> None:
    scale = TokenScale(K, 1.0, 0.0)
    c = scale.of(torch.stack([-torch.ones(D_SAE), torch.zeros(D_SAE), torch.full((D_SAE,), 1e30)])).log()
    assert c[:, 0].tolist() == pytest.approx([-WIDEST, -WIDEST, WIDEST])


def test_power_zero_is_a_plain_threshold(t: Tensor) -> None:
    assert torch.equal(TokenScale(K, 0.0, 0.5).of(t), torch.ones(N, 1))


def rational(power: float | None) -> SAE:
    rng = torch.Generator().manual_seed(1)
    W_dec = torch.nn.functional.normalize(torch.randn(D_SAE, D_IN, generator=rng), dim=-1)
    fit = cached_fit(target("jumprelu", threshold=0.08, gap=0.02), (9, 8))
    assert fit.partial_fractions is not None
    scale = torch.linspace(5.0, 8.0, D_SAE)
    shape, transition = fit.partial_fractions, rectangle(0.05 * scale)
    if power is None:
        gate = HardGate(shape, scale, 0.1 * scale, transition=transition)
    else:
        gate = TokenScaledGate(shape, scale, 0.1 * scale, transition=transition, token=TokenScale(K, power, -2.0))
    return SAE(W_dec.T, torch.zeros(D_SAE), W_dec, torch.zeros(D_IN), gate)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(N, D_IN, generator=torch.Generator().manual_seed(2))


def test_the_gate_is_its_plain_form_in_scaled_units(x: Tensor) -> None:
    plain, scaled = rational(None), rational(0.4)
    h = scaled.preactivations(x)
    assert isinstance(scaled.gate, TokenScaledGate)
    c = scaled.gate.token.of(h / scaled.gate.scale.detach())
    assert float(c.max() / c.min()) > 1.05
    expected = plain.gate(h / c)[0] * c
    assert torch.allclose(scaled.encode(x), expected, rtol=1e-6)
    assert not torch.equal(scaled.encode(x) != 0, plain.encode(x) != 0)


def test_a_power_of_zero_changes_nothing(x: Tensor) -> None:
    assert torch.equal(rational(0.0).encode(x), rational(None).encode(x))


def test_matched_sparsity_is_exact(x: Tensor) -> None:
    sae = rational(0.7)
    sae.gate.shift_(solve_shift(sae, x, 6.5))
    assert float((sae.encode(x) != 0).sum()) == 6.5 * N


def test_a_change_of_units_changes_no_support(x: Tensor) -> None:
    sae, moved = rational(0.4), rational(0.4)
    moved.rescale_latents_(torch.linspace(0.2, 4.0, D_SAE))
    assert torch.equal(sae.encode(x) != 0, moved.encode(x) != 0)
    assert torch.allclose(sae(x)[0], moved(x)[0], atol=1e-5)
