"""Sparse products against dense ones: the same codes, reconstructions and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rational_sae.gates.base import Gate
from rational_sae.gates.hard import HardGate
from rational_sae.gates.rational_topk import RationalTopKGate
from rational_sae.gates.relu import ReLUGate
from rational_sae.gates.smooth import SmoothGate
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.gates.topk import TopKGate
from rational_sae.gates.transition import Transition, rectangle
from rational_sae.rational import cached_fit, target
from rational_sae.sae import sparse
from rational_sae.sae.model import SAE, Normalisation
from rational_sae.sae.sparse import BFLOAT16_ROUNDING, reconstruct, sparse_pays, summing_error

D_IN, D_SAE, N = 17, 301, 64

pytestmark = pytest.mark.usefixtures("selection")


def make_gate(kind: str) -> Gate:
    fit = cached_fit(target("jumprelu", threshold=0.08, gap=0.02), (9, 8)).partial_fractions
    assert fit is not None
    tau = torch.linspace(1.8, 2.4, D_SAE)
    gates = {
        "relu": lambda: ReLUGate(),
        "topk": lambda: TopKGate(7),
        "threshold": lambda: ThresholdGate(tau, rectangle(0.2 * tau)),
        "hard": lambda: HardGate(fit, tau / 0.1, tau, transition=rectangle(0.2 * tau)),
        "hard, to input": lambda: HardGate(
            fit, tau / 0.1, tau, transition=Transition(rectangle(tau).profile, 0.2 * tau, to_input=True)
        ),
        "rational topk": lambda: RationalTopKGate(fit, tau / 0.1, tau, k=7),
        "smooth": lambda: SmoothGate(fit, tau / 0.1, tau),
    }
    return gates[kind]()


def make_sae(kind: str, *, offset: bool = True, normalisation: Normalisation = "none") -> SAE:
    rng = torch.Generator().manual_seed(0)
    W_dec = torch.nn.functional.normalize(torch.randn(D_SAE, D_IN, generator=rng), dim=-1)
    b_enc = torch.full((D_SAE,), -1.8 if kind == "relu" else 0.0)
    b_dec = 0.1 * torch.randn(D_IN, generator=rng)
    return SAE(W_dec.T, b_enc, W_dec, b_dec, make_gate(kind), apply_b_dec_to_input=offset, normalisation=normalisation)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(N, D_IN, generator=torch.Generator().manual_seed(1))


def gradients(sae: SAE, x: Tensor, *, use_sparse: bool) -> dict[str, Tensor]:
    """Everything a step computes: outputs, and gradients of a loss that reaches every output."""
    sae.zero_grad(set_to_none=True)
    found = reconstruct(sae, x, sparse=use_sparse)
    found.code.retain_grad()
    weight = sae.W_dec.norm(dim=-1)[found.latent]
    loss = (x - found.x_hat).pow(2).mean() + 0.1 * (found.code.abs() * weight).sum()
    (loss + found.l0).backward()
    assert found.code.grad is not None
    terms = (found.code * found.code.grad).detach().abs().flatten()
    latent = found.latent.expand(len(x), D_SAE).flatten() if found.code.dim() > 1 else found.latent
    by_code = torch.zeros(D_SAE).index_add_(0, latent, terms)
    outputs = {"x_hat": found.x_hat.detach(), "l0": found.l0.detach(), "loss": loss.detach(), "by code": by_code}
    return outputs | {name: p.grad for name, p in sae.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("normalisation", ["none", "layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("offset", [True, False])
@pytest.mark.parametrize("kind", ["relu", "topk", "threshold", "hard", "hard, to input", "rational topk"])
def test_sparse_products_give_the_dense_gradients(
    kind: str, offset: bool, normalisation: Normalisation, x: Tensor
) -> None:
    sae = make_sae(kind, offset=offset, normalisation=normalisation)
    dense, sparsely = (gradients(sae, x, use_sparse=flag) for flag in (False, True))
    assert dense.keys() == sparsely.keys()
    assert dense["W_enc"].any()
    for name, wanted in dense.items():
        # A scale's gradient is g·(r − t·r′), a difference of nearly equal terms, so its rounding is that of g·r.
        size = dense["by code"] if name == "gate.log_scale" else wanted
        assert float((sparsely[name] - wanted).norm()) <= 1e-5 * float(size.norm()), name


@pytest.mark.parametrize("kind", ["threshold", "hard", "relu", "topk"])
def test_codes_are_those_of_encode_up_to_the_order_of_summing(kind: str, x: Tensor) -> None:
    sae = make_sae(kind)
    centred = x - sae.b_dec.detach()
    z, h, bound = (f.detach() for f in (sae.encode(x), sae.preactivations(x), summing_error(sae, centred)))
    entries, value = sparse._listed(sae, centred)
    row, latent = entries.row, entries.latent
    assert bool(((value - h[row, latent]).abs() <= bound[row, latent]).all())
    code = sae.gate.codes(value, latent, N)[0].detach()
    listed = torch.zeros_like(z).index_put_((row, latent), code)
    threshold = getattr(sae.gate, "threshold", torch.zeros(())).detach()
    decided = (h - threshold).abs() > bound
    assert torch.equal((listed != 0)[decided], (z != 0)[decided])
    steepest = 4.0  # no |dz/dh| on the support of these gates is larger
    assert bool(((listed - z).abs() <= steepest * bound)[decided].all())
    assert float(bound.max()) < 1e-4
    assert int((z != 0).sum()) > 100


@pytest.mark.parametrize("size", [1.0, 1e-4, 1e4])
def test_rough_selection_misses_no_active_entry_and_lists_few_others(size: float) -> None:
    """Also where thresholds are far below the rounding of a typical product, and where one coordinate is massive."""
    rng = torch.Generator().manual_seed(3)
    weights = torch.randn(2000, 64, generator=rng).T
    centred = torch.randn(512, 64, generator=rng)
    centred[:, 5] *= 30
    level = size * torch.logspace(-4, 0, 2000)
    exact = centred.double() @ weights.double()
    entries = sparse._selected_roughly(centred, weights, level)
    chosen = torch.zeros(exact.numel(), dtype=torch.bool)
    chosen[entries.places] = True
    above = (exact > level).flatten()
    assert not bool((above & ~chosen).any())
    error = (centred.bfloat16().double() @ weights.bfloat16().double() - exact).abs()
    assert float(error.max()) > BFLOAT16_ROUNDING, "rounding is felt here"
    extra = (chosen & ~above).double().mean()
    assert extra <= 0.1


@pytest.mark.parametrize("kind", ["relu", "topk", "threshold", "hard", "rational topk", "smooth"])
def test_no_token_at_all_has_no_codes_and_no_fault(kind: str, x: Tensor) -> None:
    sae = make_sae(kind)
    x_hat, z, l0 = sae.outputs(x[:0])
    assert (x_hat.shape, z.shape, float(l0.detach())) == ((0, D_IN), (0, D_SAE), 0.0)


def test_a_batch_without_any_entry_reconstructs_the_offset(x: Tensor) -> None:
    sae = make_sae("threshold")
    with torch.no_grad():
        sae.gate.shift_(1e3)
    found = reconstruct(sae, x, sparse=True)
    found.x_hat.sum().backward()
    assert torch.equal(found.x_hat.detach(), sae.b_dec.detach().expand_as(x))
    assert sae.W_enc.grad is not None
    assert not sae.W_enc.grad.any()


def test_the_encoders_gradient_lies_in_memory_as_the_encoder_does(x: Tensor) -> None:
    sae = make_sae("hard")
    gradients(sae, x, use_sparse=True)
    assert sae.W_enc.grad is not None
    assert sae.W_enc.grad.stride() == sae.W_enc.stride()


def test_dense_products_are_taken_where_the_code_is_dense_or_the_device_cannot(
    x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sparse_pays(make_sae("hard"), x)
    assert not sparse_pays(make_sae("smooth"), x)
    low = make_sae("hard")
    low.gate.shift_(-0.2)
    assert not sparse_pays(low, x)

    def refuse(*_: object, **__: object) -> Tensor:
        raise RuntimeError("no sparse products here")

    monkeypatch.setattr("rational_sae.sae.entries.embedding_bag", refuse)
    assert not sparse_pays(make_sae("hard"), x)
