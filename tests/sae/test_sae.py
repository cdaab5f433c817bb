"""The SAE as a module that other tools drop in: names, shapes, precision, copies, and torch's own machinery."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from random_sae import gate_of_mode
from torch import Tensor

from rational_sae.gates.base import Gate
from rational_sae.gates.hard import HardGate
from rational_sae.gates.rational import RationalGate
from rational_sae.gates.relu import ReLUGate
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.gates.topk import TopKGate
from rational_sae.rational import PartialFractions
from rational_sae.sae.model import SAE, Metadata

D_IN, D_SAE = 16, 48
WAVY = PartialFractions(0.03, 0.9, alpha=[0.02, -0.03], beta=[0.04, 0.02], x=[0.2, 0.5], eta=[-1.5, -1.0])


def rational(mode: Any) -> RationalGate:
    scale = 2.0 + torch.rand(D_SAE, generator=torch.Generator().manual_seed(3))
    return gate_of_mode(mode, WAVY, scale, 0.3 * scale, k=5 if mode == "topk" else None, gain=1.3)


GATES: dict[str, Any] = {
    "standard": ReLUGate,
    "jumprelu": lambda: ThresholdGate(torch.full((D_SAE,), 0.5)),
    "topk": lambda: TopKGate(5),
    "hard": lambda: rational("hard"),
    "rational topk": lambda: rational("topk"),
    "smooth": lambda: rational("smooth"),
}


def make(gate: Gate, **options: Any) -> SAE:
    generator = torch.Generator().manual_seed(0)
    shapes = [(D_IN, D_SAE), (D_SAE,), (D_SAE, D_IN), (D_IN,)]
    weights = [torch.randn(shape, generator=generator) for shape in shapes]
    metadata = Metadata(model_name="tiny", hook_name="blocks.3.hook_resid_post", family="rational")
    return SAE(*weights, gate=gate, metadata=metadata, **options)


def batch() -> Tensor:
    return torch.randn(6, 7, D_IN, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("normalisation", ["none", "layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("name", list(GATES))
@torch.no_grad()
def test_any_leading_shape_gives_what_flat_vectors_give(name: str, normalisation: Any) -> None:
    sae, x = make(GATES[name](), normalisation=normalisation), batch()
    flat = sae.encode(x.view(-1, D_IN))
    assert sae.encode(x).shape == (6, 7, D_SAE)
    assert torch.equal(sae.encode(x).view(-1, D_SAE), flat)
    assert torch.allclose(sae.encode(x[2, 3]), flat[17], atol=1e-5)
    assert torch.equal(sae(x).view(-1, D_IN), sae(x.view(-1, D_IN)))
    if normalisation == "none":
        assert torch.equal(sae.decode(sae.encode(x)), sae(x))
    else:
        assert torch.equal(sae.decode(sae.encode(x), sae.normalise(x)[1]), sae(x))
        with pytest.raises(
            ValueError, match=r"normalises .*; write sae\.decode\(z, sae\.normalise\(x\)\[1\]\)"
        ) as refused:
            sae.decode(sae.encode(x))
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", list(GATES))
@torch.no_grad()
def test_half_precision_leaves_the_gate_in_float32(name: str) -> None:
    sae, x = make(GATES[name]()), batch()
    exact = sae(x)
    before = {key: value.clone() for key, value in sae.gate.state_dict().items()}
    low = sae.to(torch.bfloat16)
    assert (low.dtype, low.cfg.dtype) == (torch.bfloat16, "bfloat16")
    assert all(torch.equal(value, before[key]) for key, value in low.gate.state_dict().items())
    z, x_hat = low.encode(x.bfloat16()), low(x.bfloat16())
    assert (z.dtype, x_hat.dtype, low.preactivations(x).dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
    # A threshold may fall on the other side of a rounded pre-activation; only few do.
    assert (x_hat - exact).norm() < 0.1 * exact.norm()


@pytest.mark.parametrize("name", list(GATES))
@torch.no_grad()
def test_copies_and_pickles_compute_the_same(name: str) -> None:
    sae, x = make(GATES[name]()), batch()
    z = sae.encode(x)
    for other in (copy.deepcopy(sae), pickle.loads(pickle.dumps(sae))):
        assert torch.equal(other.encode(x), z)
        assert other.cfg.to_dict() == sae.cfg.to_dict()
        other.W_enc.zero_()
    assert torch.equal(sae.encode(x), z)
    whole = io.BytesIO()
    torch.save(sae, whole)
    whole.seek(0)
    assert torch.equal(torch.load(whole, weights_only=False).encode(x), z)


@torch.no_grad()
def test_a_state_dict_carries_weights_and_gate() -> None:
    sae, x = make(rational("hard")), batch()
    assert {"W_enc", "W_dec", "b_enc", "b_dec"} < set(sae.state_dict())
    flat = PartialFractions(0.0, 1.0, alpha=[0.0, 0.0], beta=[0.0, 0.0], x=[0.0, 0.0], eta=[0.0, 0.0])
    other = make(HardGate(flat, torch.ones(D_SAE), torch.ones(D_SAE)))
    assert not torch.equal(other.encode(x), sae.encode(x))
    other.load_state_dict(sae.state_dict())
    assert torch.equal(other.encode(x), sae.encode(x))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*autograd.function.Function.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("name", list(GATES))
@torch.no_grad()
def test_torch_compile_computes_the_same(name: str) -> None:
    sae, x = make(GATES[name]()), batch()
    torch.compiler.reset()
    found, wanted = torch.compile(sae)(x), sae(x)
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_cfg_is_what_saebench_reads_and_sets() -> None:
    sae = make(rational("hard"))
    cfg = sae.cfg
    assert (cfg.model_name, cfg.hook_name, cfg.hook_layer) == ("tiny", "blocks.3.hook_resid_post", 3)
    assert (cfg.d_in, cfg.d_sae, cfg.dtype, cfg.device) == (D_IN, D_SAE, "float32", "cpu")
    assert (cfg.architecture, cfg.hook_head_index, cfg.prepend_bos) == ("rational", None, None)
    cfg.hook_name = "model.layers.11"
    assert (sae.metadata.hook_name, sae.cfg.hook_layer) == ("model.layers.11", 11)
    cfg.hook_layer, cfg.dataset_trust_remote_code = 5, True
    assert (sae.cfg.hook_layer, sae.cfg.dataset_trust_remote_code) == (5, True)
    assert sae.cfg.to_dict().items() >= {"hook_layer": 5, "d_in": D_IN, "model_name": "tiny"}.items()
    sae.to(dtype=torch.bfloat16)
    sae.cfg.dtype = "bfloat16"
    with pytest.raises(AttributeError, match="follows the SAE"):
        sae.cfg.d_in = 7
    with pytest.raises(AttributeError, match="no 'hook_lair'"):
        _ = sae.cfg.hook_lair
    sae.cfg.apply_b_dec_to_input = False
    assert not sae.apply_b_dec_to_input


def test_a_copied_cfg_is_a_cfg() -> None:
    cfg = make(TopKGate(5)).cfg
    assert copy.deepcopy(cfg).to_dict() == cfg.to_dict()
    assert pickle.loads(pickle.dumps(cfg)).to_dict() == cfg.to_dict()
    assert "hook_layer" in repr(cfg)


def test_printing_an_sae_says_what_it_is() -> None:
    assert "rational, d_in=16, d_sae=48, blocks.3.hook_resid_post of tiny" in repr(make(rational("hard")))
