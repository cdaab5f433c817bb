"""circuit-tracer's transcoders: places, what its configs may say, and cross-layer ones as SAELens reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from format_cases import Shape, batch, cached, circuit_tracer, circuit_tracer_configs, cross_layer, owned_by_loader
from safetensors.torch import load_file, save_file

from rational_sae.errors import SourceError
from rational_sae.formats import load, release
from rational_sae.formats.circuit_tracer import read_as_per_layer
from rational_sae.formats.containers import open_tensors
from rational_sae.formats.hub import wanted

SHAPE = Shape()
LAYERS = "mntss-gemma-2-2b-2.5m-clt-as-per-layer"


def refused(path: Path | str, *words: str) -> None:
    with pytest.raises(SourceError) as caught:
        load(path)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_config_and_file_say_model_and_places(tmp_path: Path) -> None:
    circuit_tracer("ReLU")(tmp_path, SHAPE)
    known = load(tmp_path).metadata
    assert (known.model_name, known.family) == ("Qwen/Qwen3-4B", "relu")
    assert (known.hook_name, known.hook_name_out) == ("blocks.8.mlp.hook_in", "blocks.8.mlp.hook_out")
    assert known.warnings == []
    assert known.context_size is None  # SAELens takes the batch size of training for it
    circuit_tracer_configs(tmp_path, SHAPE, something_new=1)
    assert "something_new" in load(tmp_path).metadata.warnings[0]


def test_one_of_many_layers_has_to_be_named(tmp_path: Path) -> None:
    circuit_tracer("ReLU")(tmp_path, SHAPE)
    content = (tmp_path / "layer_8.safetensors").read_bytes()
    (tmp_path / "layer_9.safetensors").write_bytes(content)
    refused(tmp_path, "holds more than one SAE", "name the file")
    assert load(tmp_path / "layer_9.safetensors").metadata.hook_name == "blocks.9.mlp.hook_in"


@pytest.mark.parametrize(
    ("changes", "act_fn", "words"),
    [
        ({"activation": "jump_relu"}, "relu", ["jump_relu", "the file is a relu"]),
        ({"activation": "gelu"}, "relu", ["gelu", "the file is a relu"]),
        ({"k": 5}, "relu", ["k is 5"]),
        ({"model_kind": "crosscoder"}, "relu", ["model_kind 'crosscoder'"]),
        ({"feature_input_hook": ["a"]}, "relu", ["feature_input_hook"]),
        ({}, "topk", ["topk", "the file is a relu"]),
    ],
)
def test_what_configs_say_against_the_file_is_refused(
    tmp_path: Path, changes: dict[str, Any], act_fn: str, words: list[str]
) -> None:
    circuit_tracer("ReLU")(tmp_path, SHAPE)
    circuit_tracer_configs(tmp_path, SHAPE, act_fn, **changes)
    refused(tmp_path, *words)


def test_shapes_are_those_of_the_record_of_training(tmp_path: Path) -> None:
    circuit_tracer("ReLU")(tmp_path, SHAPE)
    circuit_tracer_configs(tmp_path, Shape(d_in=SHAPE.d_sae, d_sae=SHAPE.d_in))
    refused(tmp_path, "W_enc is [37, 13]")


def test_a_negative_threshold_is_refused(tmp_path: Path) -> None:
    """h·[h > θ] is then negative somewhere, which no gate here gives."""
    circuit_tracer("JumpReLU")(tmp_path, SHAPE)
    path = tmp_path / "layer_8.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    tensors["activation_function.threshold"][3] = -0.1
    save_file(tensors, path)
    refused(tmp_path, "negative")


@pytest.mark.parametrize(
    "content",
    [
        "a: &x [1, 2]\nb: *x",
        "a: " + "[" * 60 + "]" * 60,
        "model_name: 2001-01-01",
        "- model_name",
        "model_name: !!python/object/apply:os.system [true]",
        "model_name: !!bool x",
        "model_name: [",
        "# " + "x" * (1 << 21),
    ],
)
def test_odd_yaml_is_refused(tmp_path: Path, content: str) -> None:
    circuit_tracer("ReLU")(tmp_path, SHAPE)
    (tmp_path / "config.yaml").write_text(content)
    refused(tmp_path, "config.yaml")


def test_configs_are_fetched_with_a_layer() -> None:
    files = ["README.md", "config.yaml", "wanb-config.yaml", "layer_0.safetensors", "layer_1.safetensors", "notes.yaml"]
    assert wanted(files, "layer_1.safetensors", "o/r") == ["layer_1.safetensors", "config.yaml", "wanb-config.yaml"]


def test_hannas_of_the_14b_model_are_named_by_their_repository(cache: Path) -> None:
    """They have no config.yaml."""
    folder = cached(cache, "mwhanna/qwen3-14b-transcoders")
    circuit_tracer("ReLU")(folder, SHAPE)
    (folder / "config.yaml").unlink()
    names = ("saelens:mwhanna-qwen3-14b-transcoders/layer_8", "hub:mwhanna/qwen3-14b-transcoders/layer_8.safetensors")
    for known in (load(name).metadata for name in names):
        assert (known.model_name, known.format) == ("Qwen/Qwen3-14B", "circuit-tracer")
        assert (known.hook_name, known.hook_name_out) == ("blocks.8.mlp.hook_in", "blocks.8.mlp.hook_out")


# Cross-layer ones


def test_they_are_refused_by_name_wherever_they_are(tmp_path: Path, cache: Path) -> None:
    path = cross_layer(tmp_path / "clt")
    for name in (path, path.with_name("W_dec_5.safetensors"), "hub:mntss/clt-gemma-2-2b-426k/W_enc_5.safetensors"):
        refused(name, "cross-layer", "several layers")
    refused("hub:google/gemma-scope-2-1b-pt/clt/width_262k_l0_big/params_layer_3.safetensors", "cross-layer")


@torch.no_grad()
def test_a_layer_of_one_is_what_saelens_makes_of_it(cache: Path) -> None:
    folder = cached(cache, "mntss/clt-gemma-2-2b-2.5M")
    cross_layer(folder)
    ours, theirs = load(f"saelens:{LAYERS}/layer_5"), owned_by_loader("mntss_clt_layer_huggingface_loader", folder, "5")
    x = batch(SHAPE)
    torch.testing.assert_close(ours.encode(x), theirs.encode(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours(x), theirs.decode(theirs.encode(x), x), rtol=1e-5, atol=1e-4)
    known = ours.metadata
    assert (known.model_name, known.format) == ("google/gemma-2-2b", "circuit-tracer")
    assert (known.hook_name, known.hook_name_out) == ("blocks.5.hook_resid_mid", "blocks.5.hook_mlp_out")
    assert known.extra["neuronpedia_id"] == "gemma-2-2b/5-clt-hp"
    assert ["summed" in one and "3 layers" in one for one in known.warnings] == [True]


@torch.no_grad()
def test_its_thresholds_count_though_saelens_leaves_them_out(tmp_path: Path) -> None:
    path = cross_layer(tmp_path, jumps=True)
    ours = read_as_per_layer(open_tensors(path), open_tensors(path.with_name("W_dec_5.safetensors")), "5")
    stored, x = load_file(path), batch(SHAPE)
    h = x @ stored["W_enc_5"].T + stored["b_enc_5"]
    assert torch.allclose(ours.encode(x), h * (h > stored["threshold_5"]), atol=1e-5)


def test_a_layer_needs_its_config_and_its_decoders(cache: Path) -> None:
    folder = cached(cache, release.table()[LAYERS]["repo_id"])
    cross_layer(folder)
    (folder / "W_dec_5.safetensors").rename(folder / "W_dec_6.safetensors")
    refused(f"saelens:{LAYERS}/layer_5", "W_dec_5.safetensors")
    (folder / "W_dec_6.safetensors").rename(folder / "W_dec_5.safetensors")
    (folder / "config.yaml").write_text(yaml.safe_dump({"unrelated": 1}))
    refused(f"saelens:{LAYERS}/layer_5", "config.yaml")
