"""Transcoders: y of another place in place of x as what is to be given back."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rational_sae
from rational_sae.formats.save import save
from rational_sae.gates.base import Gate
from rational_sae.gates.relu import ReLUGate
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.gates.topk import TopKGate
from rational_sae.sae.model import SAE, Metadata
from rational_sae.sae.sparse import reconstruct

D_IN, D_OUT, D_SAE, N = 16, 24, 96, 2000
GATES = {
    "relu": ReLUGate,
    "jumprelu": lambda: ThresholdGate(torch.full((D_SAE,), 0.3)),
    "topk": lambda: TopKGate(8),
}


def transcoder(gate: Gate, *, skip: bool, scale: float = 1.0) -> SAE:
    generator = torch.Generator().manual_seed(0)
    W_enc = nn.functional.normalize(torch.randn(D_IN, D_SAE, generator=generator), dim=0)
    W_dec = scale * nn.functional.normalize(torch.randn(D_SAE, D_OUT, generator=generator), dim=1)
    b_dec, W_skip = torch.randn(D_OUT, generator=generator), 0.3 * torch.randn(D_OUT, D_IN, generator=generator)
    known = Metadata(family=gate.family, hook_name="blocks.0.mlp.hook_in", hook_name_out="blocks.0.hook_mlp_out")
    options: dict[str, Any] = {"transcodes": True, "W_skip": scale * W_skip if skip else None, "metadata": known}
    return SAE(W_enc, torch.full((D_SAE,), -0.2), W_dec, b_dec, gate, apply_b_dec_to_input=False, **options)


def rows(sae: SAE, noise: float = 0.2) -> Tensor:
    """[x; y], y being what the transcoder gives and some noise."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(N, D_IN, generator=generator)
    y = sae(x).detach()
    return torch.cat([x, y + noise * y.std() * torch.randn(y.shape, generator=generator)], 1)


@pytest.mark.parametrize("skip", [False, True])
def test_the_formula(skip: bool) -> None:
    sae = transcoder(ReLUGate(), skip=skip)
    x = torch.randn(5, 3, D_IN)
    expected = (x @ sae.W_enc + sae.b_enc).relu() @ sae.W_dec + sae.b_dec
    if sae.W_skip is not None:
        expected = expected + x @ sae.W_skip.T
    torch.testing.assert_close(sae(x), expected)
    packed = torch.cat([x, torch.randn(5, 3, D_OUT)], -1)
    torch.testing.assert_close(sae(packed), sae(x))
    assert torch.equal(sae.target(packed), packed[..., D_IN:])
    assert (sae.d_in, sae.d_out, sae.row_width) == (D_IN, D_OUT, D_IN + D_OUT)


@pytest.mark.parametrize("bad", [{"centred": True}, {"normalisation": "layer_norm"}, {"apply_b_dec_to_input": True}])
def test_what_a_transcoder_cannot_be_is_refused(bad: dict[str, Any]) -> None:
    tensors = [torch.zeros(*shape) for shape in ((4, 8), (8,), (8, 5), (5,))]
    with pytest.raises(ValueError, match="transcoder"):
        SAE(*tensors, gate=ReLUGate(), transcodes=True, **({"apply_b_dec_to_input": False} | bad))
    with pytest.raises(ValueError, match="transcoder"):
        SAE(*tensors, gate=ReLUGate(), W_skip=torch.zeros(5, 4))


@pytest.mark.parametrize("skip", [False, True])
def test_a_sparse_step_has_the_gradients_of_a_dense_one(skip: bool) -> None:
    x = rows(transcoder(ReLUGate(), skip=skip))[:200]
    start = rational_sae.calibrate(transcoder(GATES["jumprelu"](), skip=skip), rows(transcoder(ReLUGate(), skip=skip)))
    gradients: list[dict[str, Tensor]] = []
    for sparse in (False, True):
        sae = start.sae
        sae.zero_grad()
        (sae.target(x) - reconstruct(sae, x, sparse=sparse).x_hat).pow(2).sum().backward()
        gradients.append({name: one.grad.clone() for name, one in sae.named_parameters() if one.grad is not None})
    assert ("W_skip" in gradients[0]) == skip
    for name, dense in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], dense, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("family", GATES)
@pytest.mark.parametrize("skip", [False, True])
def test_calibrated_it_is_the_teacher_and_tuned_it_is_better(family: str, skip: bool) -> None:
    teacher = transcoder(GATES[family](), skip=skip, scale=7.0)  # another unit than x's
    x = rows(teacher)
    worse = transcoder(GATES[family](), skip=skip, scale=7.0)
    with torch.no_grad():
        worse.W_dec.mul_(0.8)
        worse.b_dec.mul_(0.5)
    start = rational_sae.calibrate(worse, x, gate="topk" if family == "topk" else "hard")
    base = rational_sae.measure(worse, x)
    assert rational_sae.measure(start.sae, x, l0=base.l0).fvu == pytest.approx(base.fvu, rel=0.08)
    done = rational_sae.finetune(start.sae, x, steps=80, batch_tokens=256)
    found = rational_sae.measure(done.sae, x, l0=base.l0)
    assert found.fvu < 0.9 * base.fvu
    assert found.l0 == pytest.approx(base.l0, rel=0.02)
    assert done.sae.transcodes
    assert (done.sae.W_skip is not None) == skip


@pytest.mark.parametrize("family", [*GATES, "rational"])
@pytest.mark.parametrize("skip", [False, True])
def test_a_saved_transcoder_comes_back_and_saelens_computes_the_same(family: str, skip: bool, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import sae_lens

    import rational_sae.saelens  # so that SAELens knows our architectures

    sae = transcoder(GATES.get(family, ReLUGate)(), skip=skip)
    if family == "rational":
        sae = rational_sae.calibrate(sae, rows(sae)).sae
    save(sae, tmp_path / "sae")
    x = torch.randn(50, D_IN)
    ours = rational_sae.load(tmp_path / "sae")
    torch.testing.assert_close(ours(x), sae(x))
    assert ours.metadata.hook_name_out == "blocks.0.hook_mlp_out"
    assert ours.cfg.hook_name_out == "blocks.0.hook_mlp_out"
    if family == "topk":  # SAELens has no transcoder with a TopK
        return
    theirs = sae_lens.SAE.load_from_disk(tmp_path / "sae")
    torch.testing.assert_close(theirs(x), sae(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(theirs.encode(x), sae.encode(x), rtol=1e-4, atol=1e-5)
    assert theirs.cfg.metadata.hook_name_out == "blocks.0.hook_mlp_out"
    theirs.save_model(tmp_path / "theirs")
    torch.testing.assert_close(rational_sae.load(tmp_path / "theirs")(x), sae(x), rtol=1e-4, atol=1e-5)
