"""Qwen Scope, Goodfire, qresearch and Kissane's SAEs: what only a name says, by the hub's cache and SAELens' table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from format_cases import Shape, batch, cached, goodfire, nanda, qwen_scope

from rational_sae.errors import SourceError
from rational_sae.formats import load, release
from rational_sae.formats.repositories import name_by_repository
from rational_sae.sae.model import Metadata

SHAPE = Shape()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def published(cache: Path, name: str, row: int = 0) -> tuple[Path, str]:
    """The cached repository of a release, and one of its SAEs."""
    entry = release.table()[name]
    return cached(cache, entry["repo_id"]), f"saelens:{name}/{entry['saes'][row]['id']}"


@pytest.mark.parametrize("config", [True, False])
def test_qwen_scope_says_k_in_its_config_or_in_its_name(cache: Path, config: bool) -> None:
    folder, name = published(cache, "qwen-scope-3-1.7b-base-w32k-l50", row=8)
    shape = Shape(d_sae=64, k=50)
    owned = qwen_scope(folder, shape)
    if not config:
        (folder / "config.json").unlink()
    for found in (load(name), load("hub:Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50/layer8.sae.pt")):
        assert (found.gate.k, found.metadata.model_name) == (50, "Qwen/Qwen3-1.7B-Base")
        assert found.metadata.hook_name == "blocks.8.hook_resid_post"
        assert found.metadata.warnings == []
        assert torch.allclose(found.encode(batch(shape)), owned.encode(batch(shape)), rtol=1e-5, atol=1e-5)


def test_qwen_scope_at_another_place_is_refused(tmp_path: Path) -> None:
    qwen_scope(tmp_path, SHAPE)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"hook_point": "mlp_out"}))
    with pytest.raises(SourceError, match="mlp_out"):
        load(tmp_path)


def test_goodfire_is_named_by_its_file(cache: Path) -> None:
    folder, name = published(cache, "goodfire-llama-3.1-8b-instruct")
    goodfire(folder, SHAPE)
    found = load(name).metadata
    assert (found.format, found.model_name) == ("Goodfire", "meta-llama/Llama-3.1-8B-Instruct")
    assert found.hook_name == "blocks.19.hook_resid_post"


@torch.no_grad()
def test_qresearch_is_named_by_its_file(cache: Path) -> None:
    folder, name = published(cache, "deepseek-r1-distill-llama-8b-qresearch")
    W, b = torch.eye(4), torch.arange(4.0)
    parts = {"encoder.weight": W, "encoder.bias": b, "decoder.weight": W, "decoder.bias": b}
    torch.save(parts, folder / "DeepSeek-R1-Distill-Llama-8B-SAE-l19.pt")
    found = load(name)
    assert found.metadata.model_name == "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"
    assert found.metadata.hook_name == "blocks.19.hook_resid_post"
    assert torch.equal(found(torch.ones(1, 4)), 1 + 2 * b[None])


def test_kissanes_are_of_all_heads(cache: Path) -> None:
    folder, name = published(cache, "gpt2-small-hook-z-kk", row=8)
    weights = Path(release.table()["gpt2-small-hook-z-kk"]["saes"][8]["path"])
    nanda(folder, SHAPE)
    (folder / "gpt2_8_z.pt").rename(folder / weights)
    config = folder / f"{weights.stem}_cfg.json"
    (folder / "gpt2_8_z_cfg.json").rename(config)
    (folder / "another_cfg.json").write_text("{}")
    found = load(name).metadata
    assert (found.model_name, found.hook_name) == ("gpt2-small", "blocks.8.attn.hook_z")
    assert (found.prepend_bos, found.context_size) == (True, 128)
    assert found.extra["model_from_pretrained_kwargs"] == {"fold_value_biases": True}
    assert found.warnings == []
    config.write_text(json.dumps(json.loads(config.read_text()) | {"head": 3}))
    with pytest.raises(SourceError, match="one attention head"):
        load(name)


@pytest.mark.parametrize(
    ("repository", "path", "model", "hook"),
    [
        ("fnlp/Llama3_1-8B-Base-LXM-32x", "Llama3_1-8B-Base-L3M-32x", "meta-llama/Llama-3.1-8B", None),
        ("Goodfire/Llama-3.3-70B-Instruct-SAE-l50", "Llama-3.3-70B-Instruct-SAE-l50.pt",
         "meta-llama/Llama-3.3-70B-Instruct", "blocks.50.hook_resid_post"),
        ("google/gemma-scope-2b-pt-att", "layer_4/width_16k/average_l0_9", "gemma-2-2b", "blocks.4.attn.hook_z"),
        ("google/gemma-scope-2-4b-it", "mlp_out_all/layer_7_width_16k_l0_big", "google/gemma-3-4b-it",
         "blocks.7.hook_mlp_out"),
        ("mwhanna/qwen3-1.7b-transcoders-lowl0", "layer_3.safetensors", "Qwen/Qwen3-1.7B", "blocks.3.mlp.hook_in"),
        ("someone/saes", "layer_3/x", None, None),
    ],
)  # fmt: skip
def test_what_repositories_are_of(repository: str, path: str, model: Any, hook: Any) -> None:
    metadata = Metadata()
    name_by_repository(metadata, repository, path)
    assert (metadata.model_name, metadata.hook_name) == (model, hook)
    said = Metadata(model_name="m", hook_name="h")
    name_by_repository(said, repository, path)
    assert (said.model_name, said.hook_name) == ("m", "h")
