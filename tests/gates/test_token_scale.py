"""The scale of a token: its level, its bounds, and the gate that uses it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rational_sae.gates.gate import RationalGate
from rational_sae.gates.token_scale import WIDEST, TokenScale, fit_token_scale
from rational_sae.gates.transition import rectangle
from rational_sae.kernels.selection import kth_largest
from rational_sae.rational import cached_fit, target
from rational_sae.sae.match_l0 import solve_shift
from rational_sae.sae.model import SAE
from rational_sae.sae.sparse import reconstruct

pytestmark = pytest.mark.usefixtures("selection")

D_IN, D_SAE, N, K = 12, 40, 64, 5


@pytest.fixture
def t() -> Tensor:
    return torch.randn(N, D_SAE, generator=torch.Generator().manual_seed(0)).exp()


def test_the_kth_largest_is_what_sorting_finds(t: Tensor) -> None:
    for k in (1, 2, K, D_SAE):
        assert torch.equal(kth_largest(t, k), t.sort(-1, descending=True).values[:, k - 1])


def test_a_fitted_scale_is_one_in_the_geometric_mean_and_grows_with_the_token(t: Tensor) -> None:
    scale = fit_token_scale(t, K, 0.5)
    c = scale.of(t)
    assert c.shape == (N, 1)
    assert float(c.log().mean()) == pytest.approx(0, abs=1e-6)
    assert torch.allclose(scale.of(1.5 * t), c * 1.5**0.5, rtol=1e-5)


def test_a_token_with_nothing_near_its_bar_keeps_a_bounded_scale(t: Tensor) -> None:
    scale = fit_token_scale(t, K, 1.0)
    c = scale.of(torch.stack([-torch.ones(D_SAE), torch.zeros(D_SAE), torch.full((D_SAE,), 1e30)])).log()
    assert c[:, 0].tolist() == pytest.approx([-WIDEST, -WIDEST, WIDEST])


def test_power_zero_is_a_plain_threshold(t: Tensor) -> None:
    assert torch.equal(fit_token_scale(t, K, 0.0).of(t), torch.ones(N, 1))


def rational(power: float | None) -> SAE:
    rng = torch.Generator().manual_seed(1)
    W_dec = torch.nn.functional.normalize(torch.randn(D_SAE, D_IN, generator=rng), dim=-1)
    fit = cached_fit(target("jumprelu", threshold=0.08, gap=0.02), (9, 8))
    assert fit.partial_fractions is not None
    scale = torch.linspace(5.0, 8.0, D_SAE)
    token = None if power is None else TokenScale(K, power, -2.0)
    gate = RationalGate(fit.partial_fractions, scale, 0.1 * scale, transition=rectangle(0.05 * scale), token=token)
    return SAE(W_dec.T, torch.zeros(D_SAE), W_dec, torch.zeros(D_IN), gate)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(N, D_IN, generator=torch.Generator().manual_seed(2))


def test_the_gate_is_its_plain_form_in_scaled_units(x: Tensor) -> None:
    plain, scaled = rational(None), rational(0.4)
    h = scaled.preactivations(x)
    c = scaled.gate.token_scale(h)
    assert c is not None
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


def test_the_sparse_step_has_the_dense_steps_gradients(x: Tensor) -> None:
    found = []
    for sparse in (True, False):
        sae = rational(0.4)
        got = reconstruct(sae, x, sparse=sparse)
        ((x - got.x_hat).pow(2).sum() + got.l0).backward()
        found.append({name: p.grad for name, p in sae.named_parameters()})
    for name, gradient in found[0].items():
        other = found[1][name]
        assert gradient is not None
        assert other is not None
        assert torch.allclose(gradient, other, rtol=1e-4, atol=1e-4 * float(other.abs().max())), name


def test_only_a_hard_gate_has_one() -> None:
    gate = rational(None).gate
    assert isinstance(gate, RationalGate)
    with pytest.raises(ValueError, match="token scale"):
        RationalGate(gate.partial_fractions, gate.scale, gate.threshold, mode="smooth", token=TokenScale(K, 0.5, 0.0))
