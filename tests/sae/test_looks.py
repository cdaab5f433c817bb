"""Further looks of the encoder: sparse against plain, α = 0 against one look, and through files and other tools."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rational_sae.check.formula import formula
from rational_sae.errors import SourceError
from rational_sae.formats import load
from rational_sae.formats.save import save
from rational_sae.gates.hard import HardGate
from rational_sae.gates.transition import rectangle
from rational_sae.rational import PartialFractions, cached_fit, target
from rational_sae.sae.looks import Look, Looks
from rational_sae.sae.match_l0 import solve_shift
from rational_sae.sae.model import SAE
from rational_sae.sae.sparse import reconstruct, sparse_pays

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import sae_lens

    import rational_sae.saelens  # noqa: F401  # SAELens learns the architecture

pytestmark = pytest.mark.usefixtures("selection")

D_IN, D_SAE, N, FLOOR, UNIT_RATIO = 17, 301, 64, 0.05, 10.0


def shape() -> PartialFractions:
    fit = cached_fit(target("jumprelu", threshold=0.08, gap=0.02), (9, 8)).partial_fractions
    assert fit is not None
    return fit


def sae(looks: int, *, alpha: float = 0.5, size: float = 1.0, **options: Any) -> SAE:
    """Seeded weights under a hard gate of thresholds of about 2·size, with so many looks."""
    rng = torch.Generator().manual_seed(0)
    W_dec = torch.nn.functional.normalize(torch.randn(D_SAE, D_IN, generator=rng), dim=-1)
    W_enc = (W_dec + 0.05 * torch.randn(D_SAE, D_IN, generator=rng)).T
    tau = size * torch.linspace(1.8, 2.4, D_SAE)
    gate = HardGate(shape(), tau / 0.1, tau, transition=rectangle(0.2 * tau))
    further = (
        Looks([Look(shape(), alpha / (i + 1), cut=FLOOR) for i in range(looks - 1)], FLOOR, UNIT_RATIO * tau)
        if looks > 1
        else None
    )
    b_enc, b_dec = 0.05 * torch.randn(D_SAE, generator=rng), 0.1 * torch.randn(D_IN, generator=rng)
    return SAE(W_enc, b_enc, W_dec, b_dec, gate, looks=further, **options)


@pytest.fixture
def x() -> Tensor:
    return 2.2 * torch.randn(N, D_IN, generator=torch.Generator().manual_seed(1))


def by_hand(one: SAE, x: Tensor) -> Tensor:
    """Codes by the formula, with nothing but dense products of float64."""
    W_enc, W_dec, b_enc, b_dec = (p.detach().double() for p in (one.W_enc, one.W_dec, one.b_enc, one.b_dec))
    gate, looks = one.gate, one.looks
    assert isinstance(gate, HardGate)
    assert looks is not None
    scale, unit = gate.scale.detach().double(), looks.unit.double()
    rest = x.double() - b_dec
    first = h = (rest if one.apply_b_dec_to_input else x.double()) @ W_enc + b_enc
    for look in looks:
        r = torch.from_numpy(look.coefficients((h / unit).numpy()))
        estimate = torch.where((first / unit > FLOOR) & (h / unit > look.cut), r * unit, 0.0)
        h = h + float(look.alpha) * ((rest - estimate @ W_dec) @ W_enc)
    h = torch.where(first / unit > FLOOR, h, first)
    r = torch.from_numpy(gate.partial_fractions((h / scale).numpy()))
    return torch.where(h > gate.threshold.detach().double(), r * scale, 0.0)


@torch.no_grad()
@pytest.mark.parametrize("centred_input", [True, False])
@pytest.mark.parametrize("looks", [2, 3])
def test_codes_are_those_of_the_formula(x: Tensor, looks: int, centred_input: bool) -> None:
    one = sae(looks, apply_b_dec_to_input=centred_input)
    inside = x.clamp(-3, 3) * 0.3  # t stays in [−1, 1], where the fractions themselves hold
    found, wanted = one.encode(inside), by_hand(one, inside)
    assert float((found.double() - wanted).abs().max()) < 1e-4 * max(1.0, float(wanted.abs().max()))
    assert torch.equal(one(inside), one.decode(found))


@torch.no_grad()
def test_a_step_of_nothing_is_one_look_to_the_bit(x: Tensor) -> None:
    assert torch.equal(sae(2, alpha=0.0).encode(x), sae(1).encode(x))


@pytest.mark.parametrize("normalisation", ["none", "layer_norm"])
@pytest.mark.parametrize("centred_input", [True, False])
@pytest.mark.parametrize("looks", [2, 3])
def test_the_sparse_step_has_the_plain_steps_gradients(
    x: Tensor, looks: int, centred_input: bool, normalisation: Any
) -> None:
    found = []
    for sparse in (True, False):
        size = 1.0 if normalisation == "none" else 0.4
        one = sae(looks, size=size, apply_b_dec_to_input=centred_input, normalisation=normalisation)
        got = reconstruct(one, x, sparse=sparse)
        ((x - got.x_hat).pow(2).sum() + got.l0).backward()
        found.append((got, {name: p.grad for name, p in one.named_parameters()}))
    (sparse_got, sparse_grads), (plain_got, plain_grads) = found
    assert torch.allclose(sparse_got.x_hat, plain_got.x_hat, rtol=1e-5, atol=1e-4)
    assert int((sparse_got.code != 0).sum()) == int((plain_got.code != 0).sum())
    for name, gradient in sparse_grads.items():
        other = plain_grads[name]
        assert gradient is not None
        assert other is not None
        tolerance = 2e-4 if name == "gate.log_scale" else 1e-5  # a difference of nearly equal sums, with one look too
        assert torch.allclose(gradient, other, rtol=tolerance, atol=tolerance * float(other.abs().max()) + 1e-7), name


@torch.no_grad()
def test_matched_sparsity_stays_exact(x: Tensor) -> None:
    one = sae(2)
    one.gate.shift_(solve_shift(one, x, 0.5))
    assert float((one.encode(x) != 0).sum()) == 0.5 * N


@torch.no_grad()
def test_thresholds_stay_above_what_is_no_candidate(x: Tensor) -> None:
    one = sae(2)
    one.gate.shift_(-10.0)
    one.project_()
    assert isinstance(one.gate, HardGate)
    assert one.looks is not None
    assert bool((one.gate.threshold >= FLOOR * one.looks.unit).all())


def test_density_is_that_of_the_candidates(x: Tensor) -> None:
    one = sae(1)
    looks = sae(2).looks
    assert looks is not None
    density = float((one.preactivations(x) / looks.unit > FLOOR).float().mean())
    assert sparse_pays(sae(2), x) == (density <= 0.1)


@torch.no_grad()
def test_a_change_of_units_changes_nothing(x: Tensor) -> None:
    one, moved = sae(2), sae(2)
    moved.rescale_latents_(torch.linspace(0.2, 4.0, D_SAE))
    moved.rescale_input_(3.0)
    assert torch.equal(one.encode(x) != 0, moved.encode(3.0 * x) != 0)
    assert torch.allclose(3.0 * one(x), moved(3.0 * x), atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("normalisation", ["none", "layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("centred_input", [True, False])
def test_saelens_and_our_own_reader_compute_the_same(
    x: Tensor, tmp_path: Path, centred_input: bool, normalisation: Any
) -> None:
    size = 1.0 if normalisation == "none" else 0.4
    one = sae(3, size=size, apply_b_dec_to_input=centred_input, normalisation=normalisation)
    save(one, tmp_path / "sae")
    wanted = one.encode(x)
    assert int((wanted != 0).sum()) > 0
    theirs = sae_lens.SAE.load_from_disk(tmp_path / "sae")
    for found in (load(tmp_path / "sae").encode(x), theirs.encode(x)):
        assert torch.equal(found != 0, wanted != 0)
        assert torch.allclose(found, wanted, rtol=1e-5, atol=1e-5)
    assert torch.allclose(theirs(x), one(x), rtol=1e-4, atol=1e-4)
    theirs.fold_W_dec_norm()
    assert torch.allclose(theirs(x), one(x), rtol=1e-4, atol=1e-4)


def test_saelens_passes_gradients_to_its_input(x: Tensor, tmp_path: Path) -> None:
    save(sae(2), tmp_path / "sae")
    theirs = sae_lens.SAE.load_from_disk(tmp_path / "sae")
    grads = []
    for model in (theirs, sae(2)):
        given = x.clone().requires_grad_()
        model(given).pow(2).sum().backward()
        grads.append(given.grad)
    assert torch.allclose(grads[0], grads[1], rtol=1e-4, atol=1e-4 * float(grads[1].abs().max()))


@pytest.mark.parametrize(
    "changed",
    [{"floor": "low"}, {"each": []}, {"each": [{"alpha": 1.0}]}, {"each": 3}, "twice", {"floor": float("inf")}],
    ids=["a word", "none", "parts missing", "a number", "a text", "infinite"],
)
def test_damaged_looks_are_refused_in_one_line(tmp_path: Path, changed: Any) -> None:
    save(sae(2), tmp_path / "sae")
    path = tmp_path / "sae" / "cfg.json"
    config = json.loads(path.read_text())
    config["looks"] = config["looks"] | changed if isinstance(changed, dict) else changed
    path.write_text(json.dumps(config))
    with pytest.raises(SourceError, match="looks"):
        load(tmp_path / "sae")


def test_the_formula_says_each_look() -> None:
    assert len(formula(sae(3))) == len(formula(sae(1))) + 2
    assert "look 2 of 3" in formula(sae(3))[1]
