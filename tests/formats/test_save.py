"""Writing SAEs: SAELens computes the same from the folder, and nothing half-written or unsafe is left."""

from __future__ import annotations

import errno
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from gate_cases import D_IN, D_SAE, FALLING, GATES, batch, make, rational_gate, shifted_relu
from safetensors.torch import save_file

from rational_sae.errors import OutputError, TrainingError
from rational_sae.formats import load
from rational_sae.formats import save as export
from rational_sae.formats.containers import open_tensors
from rational_sae.formats.saelens import CONFIG, WEIGHTS
from rational_sae.formats.save import save
from rational_sae.gates.relu import ReLUGate
from rational_sae.gates.topk import TopKGate
from rational_sae.rational import PartialFractions
from rational_sae.sae.model import SAE, Metadata
from rational_sae.support import outputs

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import sae_lens

    import rational_sae.saelens  # noqa: F401  # SAELens learns the architecture


@torch.no_grad()
def assert_same(ours: SAE, theirs: Any) -> None:
    x = batch()
    out, z, _ = ours.outputs(x)
    their_z = theirs.encode(x)
    assert torch.equal(z != 0, their_z != 0)
    assert (z - their_z).norm() <= 1e-5 * z.norm()
    assert (out - theirs.decode(their_z)).norm() <= 1e-5 * out.norm()


@pytest.mark.parametrize("normalisation", ["none", "layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("name", list(GATES))
def test_saelens_computes_the_same(tmp_path: Path, name: str, centred: bool, normalisation: Any) -> None:
    ours = make(GATES[name](), apply_b_dec_to_input=centred, normalisation=normalisation)
    save(ours, tmp_path / "deep" / "sae")
    assert_same(ours, sae_lens.SAE.load_from_disk(tmp_path / "deep" / "sae"))
    again = load(str(tmp_path / "deep" / "sae"))
    with torch.no_grad():
        assert torch.allclose(again.encode(batch()), ours.encode(batch()), rtol=1e-5, atol=1e-6)
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"sae"}


def test_saving_leaves_the_sae_alone(tmp_path: Path) -> None:
    sae = make(shifted_relu())
    before = {name: value.clone() for name, value in sae.state_dict().items()}
    save(sae, tmp_path / "sae")
    assert all(torch.equal(value, before[name]) for name, value in sae.state_dict().items())


def test_metadata_survives_both_ways(tmp_path: Path) -> None:
    known = Metadata(model_name="gpt2", hook_name="blocks.8.hook_resid_pre", context_size=64, prepend_bos=True)
    known.extra["job"] = {"seed": 3}
    save(make(rational_gate("hard"), metadata=known), tmp_path / "sae")
    theirs = sae_lens.SAE.load_from_disk(tmp_path / "sae").cfg.metadata
    assert (theirs.model_name, theirs.context_size, theirs.job) == ("gpt2", 64, {"seed": 3})
    ours = load(str(tmp_path / "sae")).metadata
    assert (ours.hook_name, ours.prepend_bos, ours.family) == ("blocks.8.hook_resid_pre", True, "rational")
    assert ours.extra["job"] == {"seed": 3}


@pytest.mark.parametrize("name", ["hard", "rational topk", "smooth"])
def test_saelens_saves_and_folds_a_rational_sae(tmp_path: Path, name: str) -> None:
    ours = make(GATES[name]())
    save(ours, tmp_path / "ours")
    theirs = sae_lens.SAE.load_from_disk(tmp_path / "ours")
    theirs.save_model(tmp_path / "theirs")
    assert_same(ours, sae_lens.SAE.load_from_disk(tmp_path / "theirs"))
    with torch.no_grad():
        before = theirs(batch())
        theirs.encode(batch().view(1, 257, D_IN))
        if name == "rational topk":
            with pytest.raises(NotImplementedError):
                theirs.fold_W_dec_norm()
            return
        theirs.fold_W_dec_norm()
        assert torch.allclose(theirs(batch()), before, atol=2e-4)
    assert torch.allclose(theirs.W_dec.norm(dim=-1), torch.ones(D_SAE))


def test_bfloat16_leaves_the_gate_in_float32(tmp_path: Path) -> None:
    ours = make(rational_gate("hard"))
    save(ours, tmp_path / "sae")
    theirs = sae_lens.SAE.load_from_disk(tmp_path / "sae").to(torch.bfloat16)
    assert theirs.W_enc.dtype == torch.bfloat16
    assert torch.equal(theirs.threshold, ours.gate.threshold)
    assert theirs.encode(batch()).dtype == torch.bfloat16
    low = sae_lens.SAE.load_from_disk(tmp_path / "sae", dtype="bfloat16")
    assert low.cfg.coefficients == ours.gate.partial_fractions.to_dict()
    assert low.threshold.dtype == torch.float32
    assert torch.isfinite(low(batch())).all()


def test_gradients_reach_the_input(tmp_path: Path) -> None:
    save(make(rational_gate("hard")), tmp_path / "sae")
    x = batch().requires_grad_()
    sae_lens.SAE.load_from_disk(tmp_path / "sae").encode(x).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_replaces_an_earlier_sae_and_nothing_else(tmp_path: Path) -> None:
    save(make(ReLUGate()), tmp_path / "sae")
    save(make(TopKGate(3)), tmp_path / "sae")
    assert json.loads((tmp_path / "sae" / CONFIG).read_text())["architecture"] == "topk"
    (tmp_path / "sae" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="other files"):
        save(make(ReLUGate()), tmp_path / "sae")
    assert (tmp_path / "sae" / "notes.txt").read_text() == "mine"
    with pytest.raises(OutputError, match="is a file"):
        save(make(ReLUGate()), tmp_path / "sae" / "notes.txt")
    with pytest.raises(OutputError):
        save(make(ReLUGate()), tmp_path / "sae" / "notes.txt" / "below")


@pytest.mark.parametrize("earlier", [True, False])
@pytest.mark.parametrize("step", ["save_file", "flush_file", WEIGHTS, CONFIG])
def test_a_full_disk_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, earlier: bool
) -> None:
    if earlier:
        save(make(ReLUGate()), tmp_path / "sae")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if step in (WEIGHTS, CONFIG):  # put in place in this order
        replace = Path.replace

        def replace_or_fail(self: Path, target: Path) -> Any:
            staged = self.name == step and self.parent.name == outputs.PARTIAL
            return fail() if staged else replace(self, target)

        monkeypatch.setattr(Path, "replace", replace_or_fail)
    else:
        monkeypatch.setattr(export, step, fail)
    with pytest.raises(OutputError, match="No space left") as caught:
        save(make(TopKGate(3)), tmp_path / "sae")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == (["sae"] if earlier else [])
    if earlier:
        assert {path.name for path in (tmp_path / "sae").iterdir()} == {CONFIG, WEIGHTS}
        assert isinstance(load(str(tmp_path / "sae")).gate, ReLUGate)


def unsafe(tmp_path: Path, sae: SAE, words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        save(sae, tmp_path / "sae")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["shape", "log_scale", "log_gain", "threshold"])
def test_refuses_numbers_that_are_not_finite(tmp_path: Path, name: str) -> None:
    gate = rational_gate("hard")
    getattr(gate, name).data.view(-1)[-1] = float("nan")
    unsafe(tmp_path, make(gate), "NaN")
    gate = rational_gate("smooth")
    gate.log_scale.data[0] = 1000.0
    unsafe(tmp_path, make(gate), "not finite")
    sae = make(ReLUGate())
    sae.W_dec.data[0, 0] = float("inf")
    unsafe(tmp_path, sae, "W_dec")


def test_refuses_a_hard_gate_that_is_not_positive(tmp_path: Path) -> None:
    unsafe(tmp_path, make(rational_gate("hard", FALLING)), "of its support")
    unsafe(tmp_path, make(rational_gate("hard", right_slope=-0.1)), "falls right")
    spike = PartialFractions(0.1, 0.5, alpha=[0.0], beta=[-0.002], x=[0.70001], eta=[-6.0])
    unsafe(tmp_path, make(rational_gate("hard", spike)), "t = 0.7")
    save(make(rational_gate("topk", FALLING)), tmp_path / "sae")


def test_a_header_whose_length_begins_like_a_pickle_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for length in range(300):
        save_file({"x": torch.ones(2)}, path, {"pad": " " * length})
        if path.read_bytes()[0] == 0x80:
            assert torch.equal(open_tensors(path).get("x"), torch.ones(2))
            return
    raise AssertionError("no such header")
