"""OpenMOSS' folders as they are published, what they leave to another file, and what is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from format_cases import Shape, batch, cached, openmoss
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from rational_sae.errors import SourceError
from rational_sae.formats import load, release
from rational_sae.formats.hub import wanted
from rational_sae.sae.model import SAE

SHAPE = Shape()


def llama_scope(folder: Path) -> Path:
    """Its folders have the weights one level deeper, and the language model beside the config."""
    openmoss("Llama Scope")(folder, SHAPE)
    (folder / "checkpoints").mkdir()
    (folder / "sae_weights.safetensors").rename(folder / "checkpoints" / "final.safetensors")
    (folder / "lm_config.json").write_text(json.dumps({"model_name": "meta-llama/Llama-3.1-8B"}))
    return folder


def stated(folder: Path, **changes: Any) -> str:
    """Change the config of a folder; None takes an entry away."""
    (path,) = (folder / name for name in ("hyperparams.json", "config.json") if (folder / name).exists())
    config = {key: value for key, value in (json.loads(path.read_text()) | changes).items() if value is not None}
    path.write_text(json.dumps(config))
    return str(folder)


def without(folder: Path, prefix: str) -> None:
    """Take tensors away."""
    path = folder / "sae_weights.safetensors"
    kept = {name: value.clone() for name, value in load_file(path).items() if not name.startswith(prefix)}
    save_file(kept, path)


@torch.no_grad()
def same(one: SAE, other: SAE) -> bool:
    x = batch(SHAPE)
    return torch.allclose(one(x), other(x), rtol=1e-5, atol=1e-5) and torch.equal(
        one.encode(x) != 0, other.encode(x) != 0
    )


def test_weights_lie_below_the_config(tmp_path: Path) -> None:
    openmoss("Llama Scope")(tmp_path / "flat", SHAPE)
    folder = llama_scope(tmp_path / "deep")
    for path in (folder, folder / "checkpoints", folder / "checkpoints" / "final.safetensors"):
        sae = load(path)
        assert (sae.metadata.format, sae.metadata.family) == ("OpenMOSS", "jumprelu")
        assert (sae.metadata.model_name, sae.metadata.hook_name) == (
            "meta-llama/Llama-3.1-8B",
            "blocks.8.hook_resid_post",
        )
        assert sae.metadata.warnings == []
        assert same(sae, load(tmp_path / "flat"))


def test_only_what_llama_scope_needs_is_fetched() -> None:
    inside = ("hyperparams.json", "lm_config.json", "checkpoints/final.safetensors")
    files = [f"L{layer}R-8x/{name}" for layer in (3, 4) for name in inside]
    want = {f"L3R-8x/{name}" for name in inside}
    assert set(wanted(files, "L3R-8x", "o/r")) == want
    assert set(wanted(files, "L3R-8x/checkpoints/final.safetensors", "o/r")) == want


def test_decoder_norms_count_only_where_they_are_said_to(tmp_path: Path) -> None:
    openmoss("Llama Scope")(tmp_path, SHAPE)
    by_norm = load(tmp_path)
    plain = load(stated(tmp_path, sparsity_include_decoder_norm=False))
    norm = (by_norm.W_dec.norm(dim=-1) * 2.5).detach()  # the stored rows; the scale is folded
    assert torch.allclose(by_norm.gate.threshold * norm, plain.gate.threshold, rtol=1e-5)
    assert torch.allclose(plain.gate.threshold, torch.tensor(0.5 * 2.5))


def test_a_topk_with_a_threshold_is_a_jumprelu(tmp_path: Path) -> None:
    openmoss("Llama Scope")(tmp_path, SHAPE)
    jumprelu = load(tmp_path)
    assert same(load(stated(tmp_path, act_fn="topk")), jumprelu)
    assert load(stated(tmp_path, jump_relu_threshold=0.0)).metadata.family == "topk"


def test_a_norm_that_is_in_no_file_is_the_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SAELens' table has it; without it x is read as it is, and a warning says so."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    entry = release.table()["llama_scope_r1_distill"]
    row = entry["saes"][0]
    folder = cached(tmp_path / "cache", entry["repo_id"]) / row["path"]
    openmoss("jumprelu")(folder, SHAPE)
    whole = load(folder)
    without(folder, "dataset_average")
    alone = load(folder)
    assert any("the norm is not in the files" in one for one in alone.metadata.warnings)
    found = load(f"saelens:llama_scope_r1_distill/{row['id']}")
    alone.rescale_input_(1 / row["norm_scaling_factor"])
    assert same(found, alone)
    assert not same(found, whole)
    assert found.metadata.warnings == []
    assert found.metadata.model_name == "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"
    assert load(f"hub:{entry['repo_id']}/{row['path']}").metadata.model_name == found.metadata.model_name


@torch.no_grad()
def test_token_wise_norms_are_taken_off_each_token(tmp_path: Path) -> None:
    openmoss("topk")(tmp_path, SHAPE)
    without(tmp_path, "dataset_average")
    sae = load(stated(tmp_path, norm_activation="token-wise"))
    x = batch(SHAPE)
    assert torch.allclose(sae.encode(x), sae.encode(5 * x), rtol=1e-4, atol=1e-5)
    assert torch.allclose(5 * sae(x), sae(5 * x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "changes", "word"),
    [
        ("jumprelu", {"sae_type": "crosscoder"}, "'crosscoder'"),
        ("jumprelu", {"use_glu_encoder": True}, "use_glu_encoder"),
        ("jumprelu", {"use_decoder_bias": False}, "use_decoder_bias"),
        ("jumprelu", {"hook_point_out": "blocks.8.hook_mlp_out"}, "transcoder"),
        ("jumprelu", {"act_fn": "relu"}, "hold log_jumprelu_threshold"),
        ("jumprelu", {"norm_activation": "batch-wise"}, "norm_activation"),
        ("jumprelu", {"expansion_factor": None}, "expansion_factor"),
        ("jumprelu", {"hook_point_in": "blocks.9.hook_resid_post", "hook_point_out": None}, "another place"),
        ("topk", {"act_fn": "batchtopk"}, "'batchtopk'"),
        ("topk", {"top_k": 38}, "at most d_sae"),
        ("Llama Scope", {"jump_relu_threshold": None}, "jump_relu_threshold is missing"),
        ("Llama Scope", {"dataset_average_activation_norm": {"in": 0.0}}, "expected a positive number"),
    ],
)
def test_what_means_something_else_is_refused(tmp_path: Path, kind: str, changes: dict[str, Any], word: str) -> None:
    openmoss(kind)(tmp_path, SHAPE)
    load(tmp_path)
    with pytest.raises(SourceError, match=word) as error:
        load(stated(tmp_path, **changes))
    assert "\n" not in str(error.value)


def test_without_a_config_the_weights_are_taken_for_nothing(tmp_path: Path) -> None:
    """They were once read as a ReLU of dictionary_learning, whose tensors have the same names."""
    folder = llama_scope(tmp_path)
    (folder / "hyperparams.json").unlink()
    with pytest.raises(SourceError, match=r"hyperparams\.json"):
        load(folder)
    openmoss("topk")(tmp_path / "plain", SHAPE)
    (tmp_path / "plain" / "config.json").unlink()
    with pytest.raises(SourceError, match=r"config\.json: no such file"):
        load(tmp_path / "plain")
