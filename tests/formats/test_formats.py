"""What formats leave open or store in more than one way: which config decides, and what is refused as ambiguous."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import peers
import pytest
import torch
from format_cases import Shape, batch, dictionary, filled, gemma_scope, openai, sparsify

from rational_sae.errors import SourceError
from rational_sae.formats import load
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.gates.topk import TopKGate

SHAPE = Shape()


def refused(path: Path, *words: str) -> None:
    with pytest.raises(SourceError) as caught:
        load(str(path))
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def weights(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("kind", ["AutoEncoderTopK", "BatchTopKSAE"])
def test_topk_and_batchtopk_are_told_by_the_config_alone(tmp_path: Path, kind: str) -> None:
    dictionary(kind)(tmp_path, SHAPE)
    gate = load(str(tmp_path)).gate
    assert isinstance(gate, TopKGate if kind == "AutoEncoderTopK" else ThresholdGate)
    (tmp_path / "config.json").unlink()
    refused(tmp_path, "AutoEncoderTopK or BatchTopKSAE", "config.json")
    kept = weights(tmp_path / "ae.pt")
    del kept["threshold"]  # only AutoEncoderTopK ever was without
    torch.save(kept, tmp_path / "ae.pt")
    assert isinstance(load(str(tmp_path)).gate, TopKGate)


@pytest.mark.parametrize("kind", ["AutoEncoder", "AutoEncoderNew", "JumpReluAutoEncoder", "MatryoshkaBatchTopKSAE"])
def test_other_classes_are_told_by_their_tensors(tmp_path: Path, kind: str) -> None:
    dictionary(kind)(tmp_path, SHAPE)
    (tmp_path / "config.json").unlink()
    assert load(str(tmp_path)).metadata.extra["dict_class"] == kind


def test_a_config_of_another_class_or_k_is_refused(tmp_path: Path) -> None:
    dictionary("AutoEncoderTopK")(tmp_path, SHAPE)
    config = json.loads((tmp_path / "config.json").read_text())
    for changes, words in (
        ({"dict_class": "AutoEncoder"}, ("dict_class is AutoEncoder", "those of AutoEncoderTopK")),
        ({"dict_class": "CrossCoder"}, ("'CrossCoder' is not supported",)),
        ({"k": 6}, ("k is 6", "in the weights it is 5")),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | {"trainer": config["trainer"] | changes}))
        refused(tmp_path, *words)


def test_a_threshold_never_learned_passes_all_that_is_positive(tmp_path: Path) -> None:
    owned = dictionary("BatchTopKSAE")(tmp_path, SHAPE)
    kept = weights(tmp_path / "ae.pt")
    torch.save(kept | {"threshold": torch.tensor(-1.0)}, tmp_path / "ae.pt")
    ours = load(str(tmp_path))
    assert ours.metadata.extra["k"] == SHAPE.k
    h = ours.preactivations(batch(SHAPE))
    assert torch.equal(ours.encode(batch(SHAPE)) != 0, h > 0)
    assert owned.path == tmp_path


def test_dictionary_learning_metadata(tmp_path: Path) -> None:
    dictionary("JumpReluAutoEncoder")(tmp_path, SHAPE)
    known = load(str(tmp_path)).metadata
    assert (known.model_name, known.hook_name) == ("EleutherAI/pythia-160m", "blocks.8.hook_resid_post")
    assert (known.context_size, known.family) == (128, "jumprelu")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_gemma_scope_in_lower_case_compressed_and_in_float64(tmp_path: Path, save: Any) -> None:
    gemma_scope("npz")(tmp_path, SHAPE)
    wanted = load(str(tmp_path)).encode(batch(SHAPE))
    with np.load(tmp_path / "params.npz") as arrays:
        named = {name.lower(): np.asfortranarray(arrays[name].astype(np.float64)) for name in arrays}
    with (tmp_path / "params.npz").open("wb") as file:
        save(file, **named)
    assert torch.equal(load(str(tmp_path)).encode(batch(SHAPE)), wanted)


def test_gemma_scope_2_says_model_and_hook(tmp_path: Path) -> None:
    gemma_scope("safetensors")(tmp_path, SHAPE)
    config = {"architecture": "jump_relu", "model_name": "gemma-v3-1b-pt", "hf_hook_point_in": "model.layers.13.output"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    known = load(str(tmp_path)).metadata
    assert (known.model_name, known.hook_name) == ("gemma-v3-1b-pt", "model.layers.13")
    (tmp_path / "config.json").write_text(json.dumps(config | {"hf_hook_point_out": "model.layers.13.mlp.output"}))
    known = load(str(tmp_path)).metadata
    assert known.hook_name_out == "model.layers.13.mlp.output"


def test_sparsify_counts_latents_by_expansion_too(tmp_path: Path) -> None:
    module = peers.sparsify()
    theirs = filled(module.SparseCoder(13, module.SparseCoderConfig(num_latents=0, expansion_factor=3, k=2)))
    theirs.save_to_disk(tmp_path)
    assert load(str(tmp_path)).d_sae == 39
    config = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps(config | {"expansion_factor": 4}))
    refused(tmp_path, "encoder.weight is [39, 13], expected [52, 13]")
    (tmp_path / "cfg.json").unlink()
    refused(tmp_path, "cfg.json: no such file")


def test_statistics_may_be_anything_but_formula_tensors_may_not(tmp_path: Path) -> None:
    path = openai("TopK")(tmp_path, SHAPE).path
    kept = weights(path)
    torch.save(kept | {"stats_last_nonzero": torch.full((37,), float("nan"))}, path)
    assert load(str(path)).d_sae == 37
    torch.save(kept | {"pre_scale": torch.ones(13)}, path)
    refused(path, "pre_scale")
    torch.save({key: value for key, value in kept.items() if key != "activation_state_dict"}, path)
    refused(path, "TopK")


def test_two_saes_in_a_folder_are_not_chosen_between(tmp_path: Path) -> None:
    openai("TopK")(tmp_path, SHAPE)
    (tmp_path / "layer_8.pt").rename(tmp_path / "layer_9.pt")
    openai("ReLU")(tmp_path, SHAPE)
    refused(tmp_path, "more than one SAE (layer_8.pt, layer_9.pt)", "name the file")
    assert load(str(tmp_path / "layer_9.pt")).metadata.family == "topk"


def test_weights_larger_than_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rational_sae.formats import containers

    sparsify(tmp_path, replace(SHAPE, d_in=64, d_sae=128))
    needed = containers.BYTES_A_NUMBER * (2 * 64 * 128 + 64 + 128)
    for free, fits in ((needed, True), (needed - 1, False)):
        memory = type("Memory", (), {"available": free})
        monkeypatch.setattr(containers.psutil, "virtual_memory", lambda memory=memory: memory)
        if fits:
            assert load(str(tmp_path)).d_sae == 128
        else:
            refused(tmp_path, "of memory")


def test_a_gated_sae_beyond_float32_is_refused(tmp_path: Path) -> None:
    dictionary("GatedAutoEncoder")(tmp_path, SHAPE)
    assert isinstance(load(str(tmp_path)).gate, ThresholdGate)
    kept = weights(tmp_path / "ae.pt")
    torch.save(kept | {"r_mag": torch.full((37,), 100.0)}, tmp_path / "ae.pt")
    refused(tmp_path, "exp(r_mag)")
